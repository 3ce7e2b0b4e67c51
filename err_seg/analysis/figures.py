"""Pictures of the analyses, drawn without any window."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from err_seg.analysis.class_recall import ClassRecall
from err_seg.analysis.classes_per_picture import ClassCounts
from err_seg.analysis.vocabulary_similarity import NearestClasses
from err_seg.files import atomic_write

COLUMNS = 3


def draw_class_counts(results: Sequence[ClassCounts]) -> Figure:
    """Draw a histogram of the number of classes per picture, one panel for each data set, on one scale."""
    columns = min(COLUMNS, len(results))
    rows = -(-len(results) // columns)
    figure = Figure(figsize=(4.2 * columns, 2.9 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False, sharex=True).flatten()
    for panel, result in zip(panels, results, strict=False):
        values, pictures = np.unique(result.classes, return_counts=True)
        panel.bar(values, pictures / len(result.classes), width=1, color="tab:blue", edgecolor="white", linewidth=0.5)
        panel.margins(y=0.3)  # room for the legend
        panel.axvline(result.mean, color="tab:red", label=f"mean {result.mean:.1f} of {result.vocabulary_size}")
        panel.set_title(f"{result.dataset} ({_pictures(len(result.classes))})", fontsize="medium")
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
        panel.yaxis.set_major_formatter(PercentFormatter(1))
        panel.tick_params(labelbottom=True)
        panel.legend(frameon=False)
    for panel in panels[len(results) :]:
        panel.set_axis_off()
    figure.supxlabel("classes in a picture")
    figure.supylabel("share of the pictures")
    return figure


def draw_class_recall(results: Sequence[ClassRecall]) -> Figure:
    """Draw the recall of classes (left) and of pixels (right) over K, one line a data set, a dot at its own K."""
    figure = Figure(figsize=(10, 4.8), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    for result in results:
        for panel, recall in ((left, result.class_recall), (right, result.pixel_recall)):
            (line,) = panel.step(range(1, len(recall) + 1), recall, where="post", label=result.dataset)
            if result.num_kept is not None and result.num_kept <= len(recall):
                panel.plot(result.num_kept, recall[result.num_kept - 1], "o", color=line.get_color())
    left.set_title("share of the classes present that are kept")
    right.set_title("share of the labelled pixels whose class is kept")
    for panel in (left, right):
        panel.set_xscale("log", base=2)
        panel.xaxis.set_major_formatter("{x:g}")
        panel.set_xlabel("K, number of classes kept (dot: the benchmark's own)")
        _finish(panel)
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=COLUMNS, frameon=False)
    return figure


def draw_similarities(results: Sequence[NearestClasses], thresholds: Sequence[float]) -> Figure:
    """Draw, for each vocabulary, the share of classes over the least similarity to their nearest training class."""
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    panel = figure.subplots()
    for result in results:
        similarity = np.sort(result.similarity.numpy())[::-1]
        share = np.arange(1, len(similarity) + 1) / len(similarity)
        # from the right edge: at x, the share of classes with a similarity of at least x
        panel.step([1, *similarity], [0, *share], where="post", label=f"{result.vocabulary} ({len(result.names)})")
    for threshold in thresholds:
        panel.axvline(threshold, color="grey", linestyle=":", linewidth=1)
    panel.invert_xaxis()
    panel.set_xlabel("cosine similarity to the nearest training class, at least")
    panel.set_ylabel("share of the classes")
    panel.legend(frameon=False)
    _finish(panel)
    return figure


def save_figure(figure: Figure, path: str | Path) -> None:
    """Write a figure as PNG."""
    with atomic_write(path) as partial:
        figure.savefig(partial, format="png", dpi=150)


def _finish(panel: Axes) -> None:
    panel.set_ylim(0, 1.02)
    panel.yaxis.set_major_formatter(PercentFormatter(1))
    panel.grid(alpha=0.3)


def _pictures(count: int) -> str:
    return "1 picture" if count == 1 else f"{count:,} pictures"
