"""Classes per image, and the share of the vocabulary that an image does not need (paper, Table I)."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from numpy.typing import NDArray

from err_seg.data import DatasetSpec, SegmentationPairs
from err_seg.data.dataset import read_checked_label
from err_seg.data.preparation.parallel import for_each
from err_seg.evaluation.results import text_table
from err_seg.lab.table import images_text
from err_seg.utils.files import write_json
from err_seg.visualization.plots import panel_grid

# classes per image, Table I
PAPER = {
    "pascal_voc_20_val": 1.5,
    "pascal_context_59_val": 4.8,
    "ade20k_150_val": 8.5,
    "pascal_context_459_val": 6.5,
    "ade20k_847_val": 10.2,
}


@dataclass(frozen=True)
class ClassCounts:
    """How many classes each image of a data set shows.

    Attributes:
        dataset: the data set's name.
        vocabulary_size: T.
        classes: (N,) int64, the number of different classes in each label map, ignored pixels aside; 0 where all
            pixels are ignored.
    """

    dataset: str
    vocabulary_size: int
    classes: NDArray[np.int64]

    @property
    def mean(self) -> float:
        """Mean number of classes per image."""
        return float(self.classes.mean())

    @property
    def redundancy(self) -> float:
        """Share of the vocabulary that the average image does not show, 1 − mean / T, in 0..1."""
        return 1 - self.mean / self.vocabulary_size


def count_classes(pairs: SegmentationPairs, workers: int = 1) -> ClassCounts:
    """Count the classes in every label map of a data set, with a progress bar.

    In a data set with a background class (PAS-20b) the background counts as one class, and T is the size of the
    vocabulary that the model chooses from. ``workers`` processes read label maps.

    Raises:
        ImageReadError: a label map cannot be read.
        DatasetError: a label map holds a value that is neither a class nor the ignore label.
        PreparationError: a worker process died.
    """
    spec = pairs.spec
    counts: list[int] = []
    paths = [pairs.paths(index)[1] for index in range(len(pairs))]
    for_each(partial(_classes_in, spec), paths, counts.append, workers=workers, title=spec.name)
    return ClassCounts(spec.name, len(spec.vocabulary), np.array(counts, dtype=np.int64))


def class_counts_table(results: Sequence[ClassCounts]) -> str:
    """Lay several data sets out as aligned text that is Markdown, too, with the paper's means beside ("-": unknown)."""
    rows = []
    for result in results:
        means = result.mean, PAPER.get(result.dataset, float("nan")), float(np.median(result.classes))
        sizes = int(result.classes.max()), result.vocabulary_size
        rows.append([result.dataset, len(result.classes), *means, *sizes, 100 * result.redundancy])
    header = ["data set", "images", "classes per image", "paper", "median", "max", "T", "redundant %"]
    return text_table(header, rows)


def save_class_counts(results: Sequence[ClassCounts], path: str | Path) -> None:
    """Write a JSON object: data set → numbers, and ``histogram``: images with 0, 1, 2, ... classes."""
    entries = {
        result.dataset: {
            "pictures": len(result.classes),
            "vocabulary_size": result.vocabulary_size,
            "mean": result.mean,
            "median": float(np.median(result.classes)),
            "max": int(result.classes.max()),
            "redundancy": result.redundancy,
            "histogram": np.bincount(result.classes).tolist(),
        }
        for result in results
    }
    write_json(path, entries, ensure_ascii=False)


def draw_class_counts(results: Sequence[ClassCounts]) -> Figure:
    """Draw a histogram of the number of classes per image, one panel for each data set, on one scale."""
    figure, panels = panel_grid(len(results), (4.2, 2.9), sharex=True)
    for panel, result in zip(panels, results, strict=True):
        values, images = np.unique(result.classes, return_counts=True)
        panel.bar(values, images / len(result.classes), width=1, color="tab:blue", edgecolor="white", linewidth=0.5)
        panel.margins(y=0.3)  # room for the legend
        panel.axvline(result.mean, color="tab:red", label=f"mean {result.mean:.1f} of {result.vocabulary_size}")
        panel.set_title(f"{result.dataset} ({images_text(len(result.classes))})", fontsize="medium")
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
        panel.yaxis.set_major_formatter(PercentFormatter(1))
        panel.tick_params(labelbottom=True)
        panel.legend(frameon=False)
    figure.supxlabel("classes in an image")
    figure.supylabel("share of the images")
    return figure


def _classes_in(spec: DatasetSpec, path: str) -> int:
    """Count the classes in a label map."""
    label = read_checked_label(spec, path)
    return int(np.count_nonzero(np.bincount(label[label != spec.ignore_label])))
