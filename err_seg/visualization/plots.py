"""What figures drawn with Matplotlib share: heat maps, class names in any script, and how they become images."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.image import AxesImage
from PIL import Image

from err_seg.utils.files import atomic_write
from err_seg.visualization.grid import fitting_size
from err_seg.visualization.text import drawable, first_synonym, shortened

COLUMNS = 3
HEAT = "magma"
LONGEST_SIDE = 480
DPI = 100
LONGEST_NAME, TITLE = 24, 9


def panel_grid(count: int, size: tuple[float, float], margin: float = 0, **sharing: Any) -> tuple[Figure, list[Axes]]:
    """Make a figure of panels of (width, height) inches, at most three side by side, and a margin at the right.

    ``sharing`` is ``sharex`` and ``sharey`` of :meth:`matplotlib.figure.Figure.subplots`.
    """
    columns = min(COLUMNS, count)
    rows = -(-count // columns)
    figure = Figure(figsize=(size[0] * columns + margin, size[1] * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False, **sharing).flatten().tolist()
    for panel in panels[count:]:
        panel.set_axis_off()
    return figure, panels[:count]


def draw_heat(axis: Axes, image: np.ndarray, heat: np.ndarray, highest: float | None = None) -> AxesImage:
    """Draw a map (h, w), 0 to ``highest``, over an image in grey, both scaled to the image's sides."""
    grey = image.mean(axis=2)
    extent = (0, image.shape[1], image.shape[0], 0)
    axis.imshow(grey, cmap="gray", vmin=0, vmax=255, extent=extent)
    return axis.imshow(heat, cmap=HEAT, vmin=0, vmax=highest, alpha=0.7, extent=extent, interpolation="bilinear")


def set_class_title(axis: Axes, name: str, suffix: str = "", size: int = TITLE) -> None:
    """Title a plot with a class name and what follows it, in a font that has the name's characters."""
    text, font = _class_text(name, size)
    axis.set_title(text + suffix, fontproperties=font, fontsize=size)


def set_class_ticks(axis: Axis, names: Sequence[str], size: int, extra: Sequence[str] = ()) -> None:
    """Label the ticks 0, 1, ... with class names, each in a font that has its characters, and ``extra`` after them."""
    drawn = [_class_text(name, size) for name in names]
    axis.set_ticks(range(len(names) + len(extra)), [*(text for text, _ in drawn), *extra], fontsize=size)
    for tick, (_, font) in zip(axis.get_ticklabels(), drawn, strict=False):
        tick.set_fontproperties(font)


def _class_text(name: str, size: int) -> tuple[str, FontProperties]:
    text, font = drawable(shortened(first_synonym(name), LONGEST_NAME), size)
    return text, FontProperties(fname=str(font.path), size=size)


def thumbnail(image: np.ndarray) -> np.ndarray:
    """Shrink an image so that its longer side is at most 480 pixels."""
    height, width = image.shape[:2]
    size = fitting_size((width, height), min(LONGEST_SIDE, max(height, width)))
    return np.asarray(Image.fromarray(image).resize(size))


def to_image(figure: Figure) -> Image.Image:
    """Render a Matplotlib figure to an RGB image."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")


def save_figure(figure: Figure, path: str | Path) -> None:
    """Write a figure as PNG."""
    with atomic_write(path) as partial:
        figure.savefig(partial, format="png", dpi=150)
