"""Evaluations compared: settings that differ, metrics with their intervals, and the classes that changed most.

Intervals are 1.96 standard errors of the bootstrap over images either way (Efron and Tibshirani, "An Introduction to
the Bootstrap", 1993, section 13.3): images are drawn with replacement, as many as there are, and mIoU is computed from
the pixels of those drawn. Percentiles of the draws would lie too high, since a class that few images show is often not
drawn at all. All runs are measured on the same draws, so that the interval of a difference is paired: it says how much
the difference depends on which images were evaluated, not how much it depends on the training's seed.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from err_seg.evaluation import BenchmarkResult, load_results
from err_seg.evaluation.calibration import CALIBRATION_METRICS
from err_seg.evaluation.metrics import IMAGE_METRICS, SEEN_METRICS, SUMMARY_METRICS
from err_seg.evaluation.results import ImageCounts, cell_text, load_image_counts, text_table

SHOWN_METRICS = (*SUMMARY_METRICS[1:], "mBoundaryIoU", *SEEN_METRICS, *IMAGE_METRICS, *CALIBRATION_METRICS)
"""The metrics beside mIoU, as far as a run has them."""
CHUNK = 50
"""Resamples that are computed at a time, which bounds memory."""
LATEX = str.maketrans({**{c: f"\\{c}" for c in "&%$#_{}"}, "\\": r"\textbackslash{}", "±": r"$\pm$", "−": "$-$"})


@dataclass(frozen=True)
class EvaluatedRun:
    """What an evaluation left: its name, as it was given; its folder; and its results by benchmark."""

    name: str
    folder: Path
    results: dict[str, BenchmarkResult]

    @classmethod
    def read(cls, path: Path) -> "EvaluatedRun":
        """Read an evaluation's output folder, or its ``results.json``.

        Raises:
            FileNotFoundError, ValueError: it holds no results.
        """
        file = path / "results.json" if path.is_dir() else path
        return cls(str(path), file.parent, {result.benchmark: result for result in load_results(file)})


@dataclass(frozen=True)
class ComparisonTable:
    """A table of the comparison, with a sentence below it."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[Any]]
    note: str = ""

    def as_markdown(self) -> str:
        """Lay it out as aligned text that is also Markdown."""
        return "\n\n".join(filter(None, [f"## {self.title}", text_table(self.header, self.rows), self.note]))

    def as_latex(self) -> str:
        """Lay it out for LaTeX with the package booktabs."""
        head, *rows = (
            " & ".join(cell_text(cell).translate(LATEX) for cell in row) + r" \\" for row in (self.header, *self.rows)
        )
        columns, caption = "l" + "r" * (len(self.header) - 1), f"{self.title}. {self.note}".translate(LATEX).strip()
        lines = [r"\begin{table}", r"\centering", rf"\caption{{{caption}}}", rf"\begin{{tabular}}{{{columns}}}"]
        lines += [r"\toprule", head, r"\midrule", *rows, r"\bottomrule", r"\end{tabular}", r"\end{table}"]
        return "\n".join(lines)


def compare(
    runs: Sequence[EvaluatedRun], *, classes: int | None = 10, resamples: int = 1000, seed: int = 0
) -> list[ComparisonTable]:
    """Compare runs with the first of them on every benchmark that all have; one run alone is summarised.

    Args:
        runs: one or more.
        classes: how many of the classes that changed most are listed; ``None``: all classes, in the vocabulary's order.
        resamples: of the bootstrap.
        seed: of the bootstrap.

    Returns:
        For each benchmark the settings that differ, if any; the metrics, in percent; and the classes.

    Raises:
        ValueError: the runs share no benchmark, or were evaluated on different images of one; or a run's image counts
            are of another evaluation than its results.
    """
    shared = [name for name in runs[0].results if all(name in run.results for run in runs)]
    if not shared:
        found = "; ".join(f"{run.name}: {', '.join(run.results) or 'none'}" for run in runs)
        raise ValueError(f"the runs have no benchmark in common ({found}); evaluate them on the same data sets")
    tables = []
    for benchmark in shared:
        results = [run.results[benchmark] for run in runs]
        if differing := differing_settings(results):
            names = [run.name for run in runs]
            tables.append(ComparisonTable(f"{benchmark}: settings that differ", ["setting", *names], differing))
        tables.append(_metrics(benchmark, runs, resamples, seed))
        tables += _classes(benchmark, runs, classes)
    return tables


def differing_settings(results: Sequence[BenchmarkResult]) -> list[list[str]]:
    """List the settings of several evaluations that are not the same in all: name and values, "-" where it has none."""
    flat = [_flattened(result.settings) for result in results]
    rows = [[key, *(own.get(key, "-") for own in flat)] for key in dict.fromkeys(key for own in flat for key in own)]
    return [row for row in rows if len(set(row[1:])) > 1]


def _flattened(settings: dict[str, Any], prefix: str = "") -> dict[str, str]:
    flat: dict[str, str] = {}
    for key, value in settings.items():
        if isinstance(value, dict):
            flat |= _flattened(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value if isinstance(value, str) else json.dumps(value)
    return flat


def _metrics(benchmark: str, runs: Sequence[EvaluatedRun], resamples: int, seed: int) -> ComparisonTable:
    """Tabulate metrics, and where image counts were kept the interval of mIoU and of its difference to the first."""
    results = [run.results[benchmark] for run in runs]
    folders = [run.folder / "inference" / benchmark for run in runs]
    further = [name for name in SHOWN_METRICS if any(name in result.metrics for result in results)]
    header = ["run", "mIoU", *["difference"] * (len(runs) > 1), *further, "images"]
    if missing := [folder / "images.npz" for folder in folders if not (folder / "images.npz").is_file()]:
        note = f"No intervals: {missing[0]} is missing; evaluate again to get it."
        draws = None
    else:
        draws = bootstrap_miou(_paired_counts(benchmark, runs, folders), resamples, seed)
        note = f"±: 95 % interval of the bootstrap over images, {resamples:,} resamples"
        note += ", paired for differences." if len(runs) > 1 else "."
    rows = []
    for i, (run, result) in enumerate(zip(runs, results, strict=True)):
        cells = [_with_interval(result.metrics["mIoU"], draws[i] if draws is not None else None)]
        if i:
            difference = result.metrics["mIoU"] - results[0].metrics["mIoU"]
            cells.append(_with_interval(difference, draws[i] - draws[0] if draws is not None else None, "+"))
        elif len(runs) > 1:
            cells.append("")
        rows.append([run.name, *cells, *(result.metrics.get(name, math.nan) for name in further), result.pictures])
    return ComparisonTable(benchmark, header, rows, note)


def _with_interval(value: float, draws: NDArray[np.float64] | None, sign: str = "") -> str:
    return f"{value:{sign}.2f}" + ("" if draws is None else f" ± {interval(draws):.2f}")


def interval(draws: NDArray[np.float64]) -> float:
    """Return half the width of the 95 % interval of what was computed on several draws."""
    return float(1.959964 * np.nanstd(draws, ddof=1))


def _paired_counts(benchmark: str, runs: Sequence[EvaluatedRun], folders: Sequence[Path]) -> list[NDArray[np.int32]]:
    """Read the counts (I, 3, N) of each run, and check that they are of its results and of the same images."""
    found = [load_image_counts(folder) for folder in folders]
    for run, folder, own in zip(runs, folders, found, strict=True):
        whole = miou(own.counts.sum(axis=0, dtype=np.int64)[None])[0]
        if not np.isclose(whole, run.results[benchmark].metrics["mIoU"], equal_nan=True):
            raise ValueError(
                f"{folder / 'images.npz'} is of another evaluation than the results of {run.name}: its mIoU is "
                f"{whole:.2f}, not {run.results[benchmark].metrics['mIoU']:.2f}; evaluate again"
            )
        if (problem := _difference(found[0], own)) is not None:
            raise ValueError(
                f"{runs[0].name} and {run.name} were not evaluated on the same images of {benchmark}: {problem}; "
                "evaluate both on the same ones"
            )
    return [own.counts for own in found]


def _difference(first: ImageCounts, other: ImageCounts) -> str | None:
    """Say how the images or the ground truth of two runs differ; ``None``: they are the same."""
    if set(first.names) != set(other.names) or len(first.names) != len(other.names):
        return f"{len(first.names)} and {len(other.names)} images, {len({*first.names} & {*other.names})} in both"
    if first.counts.shape != other.counts.shape:
        return f"{first.counts.shape[2]} and {other.counts.shape[2]} classes"
    changed = (first.counts[:, 1] != other.counts[:, 1]).any(axis=1) | (first.names != other.names)
    return f"the ground truth of {first.names[changed][0]} differs" if changed.any() else None


def bootstrap_miou(counts: Sequence[NDArray[np.integer[Any]]], resamples: int, seed: int) -> NDArray[np.float64]:
    """Compute mIoU of resampled images, the same ones for all runs.

    Args:
        counts: of each run (I, 3, N): of each image and class the pixels that are right, in the ground truth, and
            predicted.
        resamples: how often I images are drawn.
        seed: of the draws.

    Returns:
        (runs, resamples) mIoU in percent, over the classes that the images drawn show; NaN where they show none.
    """
    images = len(counts[0])
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(images, np.full(images, 1 / images), resamples).astype(np.float64)
    draws = np.empty((len(counts), resamples))
    for run, own in enumerate(counts):
        flat = own.reshape(images, -1).astype(np.float64)
        for start in range(0, resamples, CHUNK):
            totals = drawn[start : start + CHUNK] @ flat
            draws[run, start : start + CHUNK] = miou(totals.reshape(-1, *own.shape[1:]))
    return draws


def miou(totals: NDArray[Any]) -> NDArray[np.float64]:
    """Compute mIoU in percent of counts (R, 3, N), as :func:`err_seg.evaluation.metrics.segmentation_metrics` does."""
    right, truth, predicted = np.moveaxis(totals.astype(np.float64), 1, 0)
    present = truth > 0
    iou = np.divide(right, truth + predicted - right, out=np.zeros_like(right), where=present)
    number = present.sum(axis=1)
    return 100 * np.divide(iou.sum(axis=1), number, out=np.full(len(iou), np.nan), where=number > 0)


def _classes(benchmark: str, runs: Sequence[EvaluatedRun], count: int | None) -> list[ComparisonTable]:
    """Tabulate the IoU of all classes, or for each run after the first, of those that changed most."""
    class_rows = [run.results[benchmark].class_rows() for run in runs]
    if count is None or len(runs) == 1:
        rows = [[own[0][0], own[0][3], *(row[1] for row in own)] for own in zip(*class_rows, strict=True)]
        return [ComparisonTable(f"{benchmark}: IoU by class", ["class", "pixels", *(run.name for run in runs)], rows)]
    tables = []
    for run, other in zip(runs[1:], class_rows[1:], strict=True):
        pairs = zip(class_rows[0], other, strict=True)
        changes = [(after - before, name, pixels, before, after) for (name, before, _, pixels), (_, after, *_) in pairs]
        changes = sorted((row for row in changes if abs(row[0]) > 0), key=lambda row: -abs(row[0]))[:count]  # not NaN
        title = f"{benchmark}: classes that changed most in {run.name}"
        rows = [[name, pixels, before, after, f"{change:+.2f}"] for change, name, pixels, before, after in changes]
        tables.append(ComparisonTable(title, ["class", "pixels", runs[0].name, run.name, "difference"], rows))
    return [table for table in tables if table.rows]
