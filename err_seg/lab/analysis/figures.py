"""Figures of the analyses, drawn without a window."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from err_seg.lab.analysis.attention_share import AttentionShare
from err_seg.lab.analysis.class_recall import ClassRecall
from err_seg.lab.analysis.classes_per_image import ClassCounts
from err_seg.lab.analysis.vocabulary_similarity import NearestClasses
from err_seg.visualization.plots import COLUMNS, panel_grid


def draw_class_counts(results: Sequence[ClassCounts]) -> Figure:
    """Draw a histogram of the number of classes per image, one panel for each data set, on one scale."""
    figure, panels = panel_grid(len(results), (4.2, 2.9), sharex=True)
    for panel, result in zip(panels, results, strict=True):
        values, images = np.unique(result.classes, return_counts=True)
        panel.bar(values, images / len(result.classes), width=1, color="tab:blue", edgecolor="white", linewidth=0.5)
        panel.margins(y=0.3)  # room for the legend
        panel.axvline(result.mean, color="tab:red", label=f"mean {result.mean:.1f} of {result.vocabulary_size}")
        panel.set_title(f"{result.dataset} ({_images(len(result.classes))})", fontsize="medium")
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
        panel.yaxis.set_major_formatter(PercentFormatter(1))
        panel.tick_params(labelbottom=True)
        panel.legend(frameon=False)
    figure.supxlabel("classes in an image")
    figure.supylabel("share of the images")
    return figure


def draw_class_recall(results: Sequence[ClassRecall]) -> Figure:
    """Draw the recall of classes (left) and of pixels (right) over K, one line per data set, a dot at its own K."""
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


def draw_attention_share(results: Sequence[AttentionShare]) -> Figure:
    """Draw the redundant classes' share over K, a panel per data set: measured in each CFM and at uniform attention."""
    by_dataset: dict[str, list[AttentionShare]] = {}
    for result in results:
        by_dataset.setdefault(result.dataset, []).append(result)
    figure, panels = panel_grid(len(by_dataset), (5.2, 3.8), margin=1, sharey=True)
    for panel, (dataset, group) in zip(panels, by_dataset.items(), strict=True):
        group = sorted(group, key=lambda result: result.num_kept)
        num_kept = [result.num_kept for result in group]
        panel.plot(num_kept, [r.uniform for r in group], "o--", color="grey", label="R / K, uniform attention")
        shares = np.array([result.mean("redundant") for result in group])  # K×L
        for layer, share in enumerate(shares.T):
            panel.plot(num_kept, share, "o-", label=f"CFM {layer + 1}, measured")
        panel.set_title(f"{dataset} ({_images(len(group[0].present))})", fontsize="medium")
        _set_num_kept_axis(panel, num_kept)
        _finish(panel)
    figure.supylabel("attention paid to redundant classes", fontsize="medium")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=COLUMNS, frameon=False)
    return figure


def draw_saturation(
    num_kept: Sequence[int], miou: Mapping[str, Sequence[tuple[float, float]]], recall: Sequence[ClassRecall]
) -> Figure:
    """Draw mIoU over K (left axis), and which share of the classes present is kept at all (right axis; Table XIII).

    Args:
        num_kept: each K, rising.
        miou: what was evaluated (a data set, or a group of its classes) to (mean, standard deviation) for each K, in
            percent; a deviation of 0 draws no bar.
        recall: of the data sets; one that ``miou`` names has its colour.

    Raises:
        ValueError: K that do not rise, or not one pair of figures for each K.
    """
    if not num_kept or list(num_kept) != sorted(set(num_kept)):
        raise ValueError(f"num_kept must be rising numbers, got {list(num_kept)}")
    for title, values in miou.items():
        if len(values) != len(num_kept):
            raise ValueError(f"{title}: {len(values)} figures of mIoU for {len(num_kept)} values of K")
    figure = Figure(figsize=(7, 4.6), layout="constrained")
    left = figure.subplots()
    right = left.twinx()
    colors = {}
    for title, values in miou.items():
        means, deviations = zip(*values, strict=True)
        bars = deviations if any(deviations) else None
        (line, *_) = left.errorbar(num_kept, means, bars, fmt="o-", capsize=3, label=f"mIoU, {title}")
        colors[title] = line.get_color()
    for result in recall:
        shown = np.arange(num_kept[0], min(num_kept[-1], len(result.class_recall)) + 1)
        color = colors.get(result.dataset, "black")
        label = f"recall of CRM, {result.dataset}"
        right.plot(shown, 100 * result.class_recall[shown - 1], "--", color=color, label=label)
    _set_num_kept_axis(left, num_kept)
    left.set_ylabel("mIoU in % (solid)")
    right.yaxis.set_major_formatter("{x:g}")
    right.set_ylabel("classes present that are kept, in % (dashed)")
    left.grid(alpha=0.3)
    left.margins(y=0.1)
    right.margins(y=0.1)
    (lines, titles), (dashed, further) = (axis.get_legend_handles_labels() for axis in (left, right))
    figure.legend([*lines, *dashed], [*titles, *further], loc="outside lower center", ncols=2, frameon=False)
    return figure


def _set_num_kept_axis(panel: Axes, num_kept: Sequence[int]) -> None:
    """Label a logarithmic axis of K with the values measured."""
    panel.set_xscale("log", base=2)
    panel.set_xticks(num_kept, map(str, num_kept))
    panel.minorticks_off()
    panel.set_xlabel("K, number of classes kept")


def _finish(panel: Axes) -> None:
    panel.set_ylim(0, 1.02)
    panel.yaxis.set_major_formatter(PercentFormatter(1))
    panel.grid(alpha=0.3)


def _images(count: int) -> str:
    return "1 image" if count == 1 else f"{count:,} images"
