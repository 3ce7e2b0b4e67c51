"""What an evaluation writes: results as JSON, CSV, tables, detectron2's copypaste lines; predictions as files."""

import csv
import io
import json
import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from err_seg.data import DatasetSpec, read_image
from err_seg.data.mess import mess_means
from err_seg.evaluation.calibration import CALIBRATION_METRICS, risk_coverage
from err_seg.evaluation.confusion import ConfusionMatrix
from err_seg.evaluation.metrics import SEEN_METRICS, SUMMARY_METRICS, class_pixels, seen_metrics, unique_names
from err_seg.prediction.class_maps import UNLABELED
from err_seg.utils.files import atomic_write, write_json, write_text
from err_seg.utils.images import save_image
from err_seg.visualization.label_files import rle_segments, save_label_png, save_rle_json
from err_seg.visualization.overlay import overlay


@dataclass(frozen=True)
class BenchmarkResult:
    """The outcome of one benchmark.

    Attributes:
        benchmark: its name, such as "A-150".
        metrics: name to percent, NaN where undefined: see
            :func:`~err_seg.evaluation.metrics.segmentation_metrics`; further metrics may follow.
        class_names: N names, as written in the vocabulary.
        class_pixels: N counts of ground-truth pixels.
        pictures: number of images evaluated.
        settings: what the metrics depend on (checkpoint, K, sizes …), JSON-able; stored without being interpreted.
        mean_kept: how many classes of the vocabulary were kept per image on average; ``None`` if not counted.
        risk_coverage: see :func:`err_seg.evaluation.calibration.risk_coverage`; empty if confidence was not counted.
    """

    benchmark: str
    metrics: dict[str, float]
    class_names: list[str]
    class_pixels: list[int]
    pictures: int
    settings: dict[str, Any] = field(default_factory=dict)
    mean_kept: float | None = None
    risk_coverage: list[tuple[int, float]] = field(default_factory=list)

    @classmethod
    def from_counts(
        cls,
        benchmark: str,
        counts: ConfusionMatrix,
        class_names: Sequence[str],
        pictures: int,
        settings: Mapping[str, Any] | None = None,
        seen_and_unseen: Sequence[Sequence[int]] = (),
    ) -> "BenchmarkResult":
        """Compute a benchmark's metrics; :func:`seen_metrics` of two groups of classes, if they are given."""
        metrics = counts.metrics(class_names)
        if seen_and_unseen:
            metrics |= seen_metrics([metrics[f"IoU-{name}"] for name in unique_names(class_names)], *seen_and_unseen)
        return cls(
            benchmark=benchmark,
            metrics=metrics,
            class_names=list(class_names),
            class_pixels=class_pixels(counts.matrix),
            pictures=pictures,
            settings=dict(settings or {}),
            risk_coverage=[] if counts.confidences is None else risk_coverage(counts.confidences.sum(0).cpu().numpy()),
        )

    def class_rows(self) -> list[tuple[str, float, float, int]]:
        """List (class, IoU, ACC, pixels) in label order; IoU and ACC in percent or NaN."""
        names = unique_names(self.class_names)
        return [
            (name, self.metrics[f"IoU-{name}"], self.metrics[f"ACC-{name}"], pixels)
            for name, pixels in zip(names, self.class_pixels, strict=True)
        ]


def save_results(results: Sequence[BenchmarkResult], path: str | Path) -> None:
    """Write results as one JSON file, complete or not at all.

    The file is an object {"benchmarks": {name: {"pictures", "metrics", "class_names", "class_pixels", "settings",
    "mean_kept"}}}, and "risk_coverage" where it was counted; undefined metrics are null.

    Raises:
        ValueError: two results have the same benchmark name.
    """
    benchmarks: dict[str, Any] = {}
    for result in results:
        if result.benchmark in benchmarks:
            raise ValueError(f"{path}: two results named {result.benchmark!r}; a file holds one of each benchmark")
        entry = asdict(result)
        entry["metrics"] = {name: None if math.isnan(value) else value for name, value in result.metrics.items()}
        if not result.risk_coverage:
            del entry["risk_coverage"]
        benchmarks[entry.pop("benchmark")] = entry
    write_json(path, {"benchmarks": benchmarks}, ensure_ascii=False, allow_nan=False)


def load_results(path: str | Path) -> list[BenchmarkResult]:
    """Read a file of :func:`save_results`; null metrics become NaN.

    Raises:
        ValueError: the file is not such a JSON file; the message names the file and what is wrong.
    """
    try:
        benchmarks = json.loads(Path(path).read_text(encoding="utf-8"))["benchmarks"]
        results = [BenchmarkResult(benchmark=name, **entry) for name, entry in benchmarks.items()]
        for result in results:
            undefined = {name: math.nan for name, value in result.metrics.items() if value is None}
            result.metrics.update(undefined)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path} is no results file as save_results writes it ({type(error).__name__}: {error})"
        ) from error
    return results


def _summary(results: Sequence[BenchmarkResult], last: str) -> tuple[list[str], list[list[Any]]]:
    """Return header and rows of a table: five metrics, and further ones if a result has them."""
    further = (*SEEN_METRICS, *CALIBRATION_METRICS)
    columns = [*SUMMARY_METRICS, *(name for name in further if any(name in result.metrics for result in results))]
    rows = [
        [result.benchmark, *(result.metrics.get(n, math.nan) for n in columns), result.pictures] for result in results
    ]
    return ["benchmark", *columns, last], rows


def save_summary_csv(results: Sequence[BenchmarkResult], path: str | Path) -> None:
    """Write one row per benchmark: name, summary metrics in percent, number of images; undefined: empty cell."""
    write_csv(path, *_summary(results, "pictures"))


def save_class_csv(result: BenchmarkResult, path: str | Path) -> None:
    """Write one row per class: class, IoU, ACC in percent, pixels of ground truth; undefined metrics: empty cell."""
    write_csv(path, ["class", "IoU", "ACC", "pixels"], result.class_rows())


def summary_table(results: Sequence[BenchmarkResult]) -> str:
    """Lay several benchmarks out as aligned text, also valid Markdown: percent with two decimals, "-" if undefined.

    Below those of MESS are their means by domain, in mIoU-v0.6, which is the mIoU of MESS's tables.
    """
    header, rows = _summary(results, "images")
    means = mess_means({result.benchmark: result.metrics["mIoU-v0.6"] for result in results})
    for name, mean in means.items():
        rows.append([name, *(mean if column == "mIoU-v0.6" else math.nan for column in header[1:-1]), ""])
    return text_table(header, rows)


def copypaste_lines(results: Sequence[BenchmarkResult]) -> list[str]:
    """Return the lines that detectron2 prints for spreadsheets, three for each benchmark.

    With one benchmark, the first line is detectron2's own, "copypaste: Task: sem_seg"; with several, the task is the
    benchmark's name. Metrics with a dash (per class, mIoU-v0.6) are left out as in detectron2, but for seen classes.
    """
    lines = []
    for result in results:
        main = {name: value for name, value in result.metrics.items() if "-" not in name or name in SEEN_METRICS}
        task = "sem_seg" if len(results) == 1 else result.benchmark
        lines += [
            f"copypaste: Task: {task}",
            "copypaste: " + ",".join(main),
            "copypaste: " + ",".join(f"{value:.4f}" for value in main.values()),
        ]
    return lines


def write_csv(path: str | Path, header: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Write a CSV file, complete or not at all; NaN becomes an empty cell."""
    with atomic_write(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(["" if _undefined(cell) else cell for cell in row] for row in rows)


def text_table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Lay rows out as aligned text, also valid Markdown: floats with two decimals, NaN as "-"."""
    table = Table(box=box.MARKDOWN)
    for index, name in enumerate(header):
        table.add_column(name, justify="left" if index == 0 else "right", no_wrap=True)
    for row in rows:
        table.add_row(*(Text(cell_text(cell).replace("|", "\\|")) for cell in row))
    # A separate console, as wide as the table needs, whatever terminal the caller has, if any.
    console = Console(file=io.StringIO(), width=10_000, color_system=None)
    with console.capture() as capture:
        console.print(table)
    # The Markdown box draws blank lines above and below.
    return "\n".join(line for line in capture.get().splitlines() if line.strip())


def cell_text(value: Any) -> str:
    """Write a value of a table: floats with two decimals, NaN as "-", integers with commas."""
    if isinstance(value, float):
        return "-" if _undefined(value) else f"{value:.2f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _undefined(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)


class ImageCounts(NamedTuple):
    """The pixels of each image by class, of which any image's metrics can be computed.

    Attributes:
        names: (I,) the images' names.
        counts: (I, 3, N): of each class the pixels that are right, in the ground truth, and predicted.
    """

    names: NDArray[np.str_]
    counts: NDArray[np.int32]


def save_image_counts(folder: Path, names: Sequence[str], counts: NDArray[np.int32]) -> None:
    """Write :class:`ImageCounts` to ``images.npz`` in a folder, complete or not at all."""
    with atomic_write(folder / "images.npz") as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, names=np.array(names, dtype=str), counts=counts)


def load_image_counts(folder: Path) -> ImageCounts:
    """Read what :func:`save_image_counts` wrote.

    Raises:
        FileNotFoundError: there is none.
        ValueError: the file is not such a file; names it.
    """
    file = folder / "images.npz"
    try:
        with np.load(file) as arrays:
            return ImageCounts(arrays["names"], arrays["counts"])
    except (ValueError, KeyError, BadZipFile) as error:
        raise ValueError(f"{file} is not of an evaluation ({type(error).__name__}: {error}); evaluate anew") from error


class PredictionFiles:
    """Writes the files that ``TEST.SAVE`` asks for.

    - ``"png"``: ``labels/<name>.png``, class indices with a palette (16-bit grey for more than 255 classes);
    - ``"rle"``: ``sem_seg_predictions.json``, COCO's run-length segments of all images;
    - ``"overlay"``: ``overlays/<name>.png``, the classes' colours over the image, with a legend.

    The classes are those of the ground truth: in a background variant, all other words become "background". ``names``
    are those of all images, by index.
    """

    def __init__(self, folder: Path, kinds: Sequence[str], spec: DatasetSpec, names: Sequence[str]):
        self.folder, self.kinds, self.spec, self.names = folder, kinds, spec, names
        self._segments = folder / "segments"  # of each image, until all are done

    def save(self, index: int, image_path: str, labels: np.ndarray) -> None:
        """Write the files of one image; ``labels`` (H, W): indices into the benchmark's vocabulary, or -1."""
        name, classes = self.names[index], self.spec.evaluated_classes
        labels = np.minimum(labels, len(classes) - 1)
        if "png" in self.kinds:
            save_label_png(labels, self.folder / "labels" / f"{name}.png", classes, ignore_label=UNLABELED)
        if "rle" in self.kinds:
            segments = rle_segments(labels, image_path, classes, ignore_label=UNLABELED)
            write_text(self._segments / f"{index:07d}.json", json.dumps(segments))
        if "overlay" in self.kinds:
            image = overlay(read_image(image_path), labels, classes)
            save_image(image, self.folder / "overlays" / f"{name}.png")

    def finish(self) -> None:
        """Put the segments of all images into one file (in one process, when all are done)."""
        if "rle" in self.kinds:
            files = (self._segments / f"{index:07d}.json" for index in range(len(self.names)))
            segments = (segment for file in files for segment in json.loads(file.read_text(encoding="utf-8")))
            save_rle_json(segments, self.folder / "sem_seg_predictions.json")
            shutil.rmtree(self._segments)
