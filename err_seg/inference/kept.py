"""A figure of CRM's choice: the scores of the classes, the kept ones marked, and where the kept ones are probable."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from PIL import Image

from err_seg.legend import drawable
from err_seg.modeling.segmentation import Segmentation
from err_seg.visualize import first_synonym

BARS, MAPS, MAP_COLUMNS = 24, 9, 3
KEPT_COLOR, DROPPED_COLOR, CUT_COLOR = "#0072b2", "#c8c8c8", "#d55e00"  # told apart with any colour vision
HEAT = "magma"
LONGEST_SIDE = 480
DPI = 100
LONGEST_NAME = 24


def kept_figure(picture: np.ndarray, result: Segmentation) -> Image.Image:
    """Draw what CRM kept and why.

    Left: the classes with the highest scores. A class scores one for every place of the grid where it fits best, a
    tenth where it fits second best, and so on; the K best are kept. Right: the kept classes that are most probable
    anywhere, with their probabilities over the picture in grey.

    Args:
        picture: (H, W, 3) uint8 RGB.
        result: its prediction.
    """
    small = thumbnail(picture)
    maps = result.probabilities.float().cpu()
    order = maps.amax(dim=(1, 2)).argsort(descending=True, stable=True)[:MAPS].tolist()
    rows = max(1, -(-len(order) // MAP_COLUMNS))
    aspect = min(max(small.shape[0] / small.shape[1], 0.3), 2.0)
    num_bars = min(BARS, len(result.vocabulary))
    height = max(0.28 * num_bars + 1.2, rows * (2.3 * aspect + 0.35) + 0.6)
    figure = Figure(figsize=(11.5, height), dpi=DPI, layout="constrained")
    left, right = np.asarray(figure.subfigures(1, 2, width_ratios=(4, 7.5)), dtype=object)
    _draw_scores(left.subplots(), result, num_bars)

    axes = right.subplots(rows, MAP_COLUMNS, squeeze=False).ravel()
    for axis in axes:
        axis.axis("off")
    for axis, place in zip(axes, order, strict=False):
        heat = draw_heat(axis, small, maps[place].numpy(), highest=1.0)
        set_class_title(axis, result.vocabulary[int(result.kept[place])], f"  max {maps[place].max():.2f}")
    bar = right.colorbar(heat, ax=list(axes), shrink=0.5, pad=0.02)
    bar.set_label("probability", fontsize=9)
    return to_image(figure)


def _draw_scores(axis: Axes, result: Segmentation, num_bars: int) -> None:
    scores = result.class_scores.float().cpu()
    order = scores.argsort(descending=True, stable=True)[:num_bars].tolist()
    kept = set(result.kept.tolist())
    places = np.arange(len(order))
    colors = [KEPT_COLOR if index in kept else DROPPED_COLOR for index in order]
    axis.barh(places, scores[order].numpy(), color=colors)
    axis.invert_yaxis()
    set_class_ticks(axis.yaxis, [result.vocabulary[index] for index in order], 10)
    for place, index in enumerate(order):
        axis.text(scores[index].item(), place, f" {scores[index]:.1f}", va="center", fontsize=8, color="#505050")
    count = sum(index in kept for index in order)
    if 0 < count < len(order):
        axis.axhline(count - 0.5, color=CUT_COLOR, linestyle="--", linewidth=1)
    axis.set_xscale("function", functions=(np.sqrt, np.square))  # scores of 100 and of 0.1 are both worth seeing
    axis.set_xlim(0, max(1.4 * float(scores.max()), 1e-3))
    axis.margins(y=0.01)
    axis.spines[["top", "right"]].set_visible(False)
    axis.set_xlabel("CRM score (grid places, √ scale)", fontsize=9)
    axis.set_title(f"{len(kept)} of {len(result.vocabulary)} classes kept (blue)", fontsize=11)


def draw_heat(axis: Axes, picture: np.ndarray, heat: np.ndarray, highest: float | None = None):
    """Draw a map (h, w), 0 to ``highest``, over a picture in grey, both scaled to the picture's sides."""
    grey = picture.mean(axis=2)
    extent = (0, picture.shape[1], picture.shape[0], 0)
    axis.imshow(grey, cmap="gray", vmin=0, vmax=255, extent=extent)
    return axis.imshow(heat, cmap=HEAT, vmin=0, vmax=highest, alpha=0.7, extent=extent, interpolation="bilinear")


def set_class_title(axis: Axes, name: str, suffix: str) -> None:
    """Title a plot with a class name and what follows it, in a font that has the name's characters."""
    text, font = drawable(first_synonym(name)[:LONGEST_NAME], 10)
    axis.set_title(text + suffix, fontproperties=FontProperties(fname=str(font.path)), fontsize=10)


def set_class_ticks(axis: Axis, names: Sequence[str], size: int, extra: Sequence[str] = ()) -> None:
    """Label the ticks 0, 1, ... with class names, each in a font that has its characters, and ``extra`` after them."""
    drawn = [drawable(first_synonym(name)[:LONGEST_NAME], size) for name in names]
    axis.set_ticks(range(len(names) + len(extra)), [*(text for text, _ in drawn), *extra])
    for tick, (_, font) in zip(axis.get_ticklabels(), drawn, strict=False):
        tick.set_fontproperties(FontProperties(fname=str(font.path)))
    for tick in axis.get_ticklabels():
        tick.set_fontsize(size)


def thumbnail(picture: np.ndarray) -> np.ndarray:
    """Shrink a picture so that its longest side is at most 480 pixels."""
    scale = min(1.0, LONGEST_SIDE / max(picture.shape[:2]))
    size = (max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale)))
    return np.asarray(Image.fromarray(picture).resize(size))


def to_image(figure: Figure) -> Image.Image:
    """Render a Matplotlib figure to an RGB picture."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
