"""Time, operations and mIoU of methods side by side (Table III), and as points of a plot (Fig. 1)."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import nan
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from err_seg.evaluation import BenchmarkResult, load_results
from err_seg.evaluation.results import text_table, write_csv
from err_seg.lab.benchmarks.measurement import percentiles
from err_seg.lab.benchmarks.report import PAPER
from err_seg.utils.files import write_text
from err_seg.visualization.plots import panel_grid, save_figure


@dataclass(frozen=True)
class Point:
    """A method on a benchmark: milliseconds an image with their 10th and 90th percentile, GMAC (or NaN), and mIoU."""

    method: str
    benchmark: str
    ms: tuple[float, float, float]
    gmac: float
    miou: float


def join(timings: Sequence[Path], runs: Mapping[str, Path]) -> list[Point]:
    """Join files of ``err-seg benchmark prediction`` with evaluations.

    Args:
        timings: ``results.json`` files of timings.
        runs: configuration or predictor, as the timings name it, to the folder (or ``results.json``) of its evaluation.

    Raises:
        ValueError: a file is of another kind, the timings lack the case that was evaluated (T, S, K and precision, or
            the predictor and T), or they hold it twice.
    """
    points = []
    for method, run in runs.items():
        for result in load_results(run / "results.json" if run.is_dir() else run):
            wanted = _wanted(method, result)
            found = [row for row in _rows(timings) if wanted.items() <= row["case"].items()]
            if len(found) != 1:
                case = ", ".join(f"{key} {value}" for key, value in wanted.items() if value not in ("", False, 1))
                raise ValueError(
                    f"{run}: {len(found)} of the timings are of what was evaluated on {result.benchmark} ({case}), "
                    "expected one; run err-seg benchmark prediction with these values"
                )
            macs = sum(found[0]["macs"].values()) / 1e9
            low_to_high = percentiles([1e3 * seconds for seconds in found[0]["seconds"]])
            points.append(Point(method, result.benchmark, low_to_high, macs or nan, result.metrics["mIoU"]))
    return points


def _wanted(method: str, result: BenchmarkResult) -> dict[str, Any]:
    settings, common = result.settings, {"kind": "prediction", "num_classes": len(result.class_names), "batch_size": 1}
    if "predictor" in settings:
        return {**common, "predictor": settings["predictor"]}
    kept = "need" if settings["min_score"] else settings["K"]
    own = {"num_kept": kept, "size": settings["S"], "precision": settings["precision"]}
    return {**common, **own, "config": method, "predictor": "", "compiled": "", "is_reference": False}


def _rows(timings: Sequence[Path]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for file in timings:
        try:
            rows += json.loads(file.read_text(encoding="utf-8"))["rows"]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{file} is not of err-seg benchmark ({type(error).__name__}: {error})") from error
    return rows


def table(points: Sequence[Point]) -> tuple[list[str], list[list[Any]]]:
    """Lay points out as Table III does: a row for each method, three columns for each benchmark."""
    benchmarks = list(dict.fromkeys(point.benchmark for point in points))
    header = [f"{name} {what}" for name in benchmarks for what in ("ms", "GMAC", "mIoU")]
    rows = []
    for method in dict.fromkeys(point.method for point in points):
        own = {point.benchmark: point for point in points if point.method == method}
        found = [
            (own[name].ms[0], own[name].gmac, own[name].miou) if name in own else (nan,) * 3 for name in benchmarks
        ]
        rows.append([method, *(value for values in found for value in values)])
    return ["method", *header], rows


def draw(points: Sequence[Point]) -> Figure:
    """Draw mIoU over time, a panel for each benchmark and a point for each method."""
    benchmarks = list(dict.fromkeys(point.benchmark for point in points))
    figure, panels = panel_grid(len(benchmarks), (5.2, 3.8))
    for panel, name in zip(panels, benchmarks, strict=True):
        for point in (point for point in points if point.benchmark == name):
            median, low, high = point.ms
            bars = [[median - low], [high - median]]
            panel.errorbar(median, point.miou, xerr=bars, marker="o", ms=8, capsize=3, ls="", label=point.method)
        panel.set_title(name)
        panel.set_xscale("log")
        panel.set_xlabel("ms an image (bars: 10th to 90th percentile)")
        panel.set_ylabel("mIoU")
        panel.grid(alpha=0.3, which="both")
        panel.margins(0.15)
        panel.legend(frameon=False, fontsize="small")
    return figure


def save(points: Sequence[Point], output: Path) -> str:
    """Write ``table.md`` with the paper's own figures below, ``table.csv`` and ``plot.png``; return the table."""
    text = text_table(*table(points))
    output.mkdir(parents=True, exist_ok=True)
    write_text(output / "table.md", f"{text}\n\n{PAPER.strip()}\n")
    write_csv(output / "table.csv", *table(points))
    save_figure(draw(points), output / "plot.png")
    return text
