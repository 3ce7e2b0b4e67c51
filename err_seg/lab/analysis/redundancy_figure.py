"""Draws one class's attention with all classes kept and with K of them (paper, Fig. 2)."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from PIL import Image

from err_seg.lab.analysis.attention_comparison import ClassAttention, Comparison
from err_seg.prediction.attention import POINT_COLOR
from err_seg.visualization.plots import DPI, draw_heat, set_class_title, thumbnail, to_image

UNIFORM_MARKER = "v"
OUTLINE_COLOR = "#ffffff"
# of what Comparison.class_shares returns, in its order
SHARE_COLORS = {"itself": "#0072b2", "other present classes": "#8fd0f5", "redundant classes": "#e8743b"}


def redundancy_figure(comparison: Comparison) -> Image.Image:
    """Draw SFM's attention maps of the class, with all classes above and with K below, and CFM's shares beneath.

    The two maps of a layer have one scale of colours, so that they compare.
    """
    c = comparison
    small = thumbnail(c.image)
    layers = len(c.few.attention.spatial)
    columns = 1 + layers
    aspect = min(max(small.shape[0] / small.shape[1], 0.4), 1.6)
    panel = 3.1
    num_bars = 2 * len(c.few.attention.category)
    bars_height = 0.36 * num_bars + 1.3
    figure = Figure(figsize=(panel * columns, 2 * (panel * aspect + 0.3) + bars_height), dpi=DPI, layout="constrained")
    above, below = np.asarray(
        figure.subfigures(2, 1, height_ratios=(2 * (panel * aspect + 0.3), bars_height)), dtype=object
    )
    axes = above.subplots(2, columns, squeeze=False)
    for axis in axes.ravel():
        axis.axis("off")
    axes[0, 0].imshow(small, extent=(0, small.shape[1], small.shape[0], 0))
    _mark(axes[0, 0], small, c)
    set_class_title(axes[0, 0], c.all.result.vocabulary[c.index], size=10)
    _write_explanation(axes[1, 0], c)
    for layer in range(layers):
        maps = [run.attention.to_pixels(layer, run.place, c.relative_point).numpy() for run in (c.all, c.few)]
        for axis, run, heat in zip(axes[:, layer + 1], (c.all, c.few), maps, strict=True):
            draw_heat(axis, small, heat, highest=max(m.max() for m in maps))
            _mark(axis, small, c)
            title = f"SFM {layer + 1}, {_kept(run)}: {c.share_on_class(run, layer):.0%} on the class"
            axis.set_title(title, fontsize=10)
    _draw_class_shares(below.subplots(), c)
    return to_image(figure)


def _kept(run: ClassAttention) -> str:
    kept = len(run.result.kept)
    return f"all {kept}" if kept == len(run.result.vocabulary) else f"K = {kept}"


def _mark(axis: Axes, small: np.ndarray, c: Comparison) -> None:
    """Mark the point, and outline where the class is."""
    if c.region.any() and not c.region.all():
        height, width = c.region.shape
        xs = (np.arange(width) + 0.5) * small.shape[1] / width
        ys = (np.arange(height) + 0.5) * small.shape[0] / height
        axis.contour(xs, ys, c.region, levels=[0.5], colors=OUTLINE_COLOR, linewidths=1.2, linestyles="--")
    x, y = c.relative_point
    spot = (x * small.shape[1], y * small.shape[0])
    axis.plot(*spot, "o", color=POINT_COLOR, markeredgecolor="black", markersize=8)
    axis.set(xlim=(0, small.shape[1]), ylim=(small.shape[0], 0))


def _write_explanation(axis: Axes, c: Comparison) -> None:
    source = "label map" if c.has_truth else f"prediction with {_kept(c.few)}"
    lines = [
        "Right: where SFM looks from the",
        "point, in the map of this class,",
        f"with {_kept(c.all)} classes (above)",
        f"and with {_kept(c.few)} (below).",
        "Bright: much attention.",
        "SFM 1 comes before any CFM, so",
        "its two maps are equal.",
        "",
        "Dashed: where the class is,",
        f"{c.region.mean():.0%} of the area ({source}).",
    ]
    axis.text(0, 0.98, "\n".join(lines), va="top", fontsize=9, transform=axis.transAxes)


def _draw_class_shares(axis: Axes, c: Comparison) -> None:
    """Draw one bar for each CFM and run: how it divides the class's attention, and how uniform attention would."""
    labels: list[tuple[float, str]] = []
    for layer in range(len(c.few.attention.category)):
        for run in (c.all, c.few):
            y = len(labels) + 0.4 * layer
            left = 0.0
            for share, (name, color) in zip(c.class_shares(run, layer).tolist(), SHARE_COLORS.items(), strict=True):
                axis.barh(y, share, left=left, color=color, height=0.8, label=None if labels else name)
                if share > 0.05:
                    ink = "white" if name == "itself" else "black"
                    axis.text(left + share / 2, y, f"{share:.0%}", ha="center", va="center", fontsize=9, color=ink)
                left += share
            uniform = float(c.present[run.result.kept.cpu()].float().mean())
            axis.plot(uniform, y - 0.4, UNIFORM_MARKER, color="black", markersize=7, clip_on=False)
            labels.append((y, f"CFM {layer + 1}, {_kept(run)}"))
    axis.plot([], [], UNIFORM_MARKER, color="black", label="where blue would end if all classes got the same")
    axis.set_yticks([y for y, _ in labels], [name for _, name in labels], fontsize=9)
    axis.invert_yaxis()
    axis.set_xlim(0, 1)
    axis.xaxis.set_major_formatter(PercentFormatter(1))
    axis.spines[["top", "right"]].set_visible(False)
    number = f"{int(c.present.sum())} of the {len(c.present)} classes are present"
    axis.set_title(f"How CFM divides the attention of this class at the point ({number})", fontsize=10)
    axis.figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=9)
