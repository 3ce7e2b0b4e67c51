"""A picture grid to look at: scenes beside their truth and what was predicted, with the classes' names."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from err_seg.colors import class_colors
from err_seg.data.mini_vocabulary import UNSEEN, VOCABULARY

Labels = NDArray[np.int64]
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

NOTE = "(new): a class that training never showed. Gray: predicted, but not in the picture."
CELL, GAP, HEADING, LEGEND_LINE, SWATCH = 256, 10, 30, 20, 12


def prediction_grid(
    images: Sequence[NDArray[np.uint8]], truths: Sequence[Labels], predictions: Mapping[str, Sequence[Labels]]
) -> Image.Image:
    """Draw one row a scene: the picture, the truth, one column for each way of predicting, and a legend below.

    Args:
        images: scenes (H, W, 3) uint8 RGB.
        truths: their label maps (H, W), indices into ``VOCABULARY``.
        predictions: title of a column to the label maps predicted.

    Returns:
        The grid; classes that training did not see are marked "new" in the legend.
    """
    colors = class_colors(VOCABULARY)
    titles = ["picture", "truth", *predictions]
    width = len(titles) * (CELL + GAP) + GAP
    font, bold = ImageFont.load_default(13), ImageFont.load_default(18)
    rows = []
    for i, (image, truth) in enumerate(zip(images, truths, strict=True)):
        maps = [truth, *(column[i] for column in predictions.values())]
        rows.append(_row(image, maps, colors, width, font))
    grid = Image.new("RGB", (width, HEADING + sum(row.height for row in rows) + LEGEND_LINE), "white")
    draw = ImageDraw.Draw(grid)
    for column, title in enumerate(titles):
        draw.text((GAP + column * (CELL + GAP) + CELL // 2, HEADING // 2), title, "black", bold, "mm")
    top = HEADING
    for row in rows:
        grid.paste(row, (0, top))
        top += row.height
    draw.text((GAP, top), NOTE, "gray", font)
    return grid


def _row(
    image: NDArray[np.uint8], maps: Sequence[Labels], colors: NDArray[np.uint8], width: int, font: Font
) -> Image.Image:
    """One scene: its panels, and the legend of every class that any of the maps shows, the truth's first."""
    scale = CELL / max(image.shape[:2])
    size = round(image.shape[1] * scale), round(image.shape[0] * scale)
    shown = _shown_classes(maps)
    places, lines = _flow([_entry(index) for index in shown], width - 2 * GAP, font)
    row = Image.new("RGB", (width, size[1] + 2 * GAP + lines * LEGEND_LINE), "white")
    for column, pixels in enumerate([image, *(colors[labels] for labels in maps)]):
        panel = Image.fromarray(pixels).resize(size, Image.Resampling.NEAREST)
        row.paste(panel, (GAP + column * (CELL + GAP) + (CELL - size[0]) // 2, 0))
    draw = ImageDraw.Draw(row)
    for index, (x, line) in zip(shown, places, strict=True):
        left, top = GAP + x, size[1] + GAP // 2 + line * LEGEND_LINE
        color = tuple(int(level) for level in colors[index])
        draw.rectangle((left, top + 2, left + SWATCH, top + 2 + SWATCH), fill=color, outline="black")
        known = bool((maps[0] == index).any())
        draw.text((left + SWATCH + 5, top), _entry(index), "black" if known else "gray", font)
    return row


def _shown_classes(maps: Sequence[Labels], least: float = 0.02) -> list[int]:
    """Classes of the truth, then those of the predictions with at least a share of the pixels worth naming."""
    shown = np.unique(maps[0]).tolist()
    for labels in maps[1:]:
        values, counts = np.unique(labels, return_counts=True)
        shown += [v for v, n in zip(values.tolist(), counts, strict=True) if n >= least * labels.size]
    return list(dict.fromkeys(shown))


def _entry(index: int) -> str:
    return VOCABULARY[index] + (" (new)" if index in UNSEEN else "")


def _flow(entries: Sequence[str], width: int, font: Font) -> tuple[list[tuple[int, int]], int]:
    """Set legend entries one after the other into lines; gives (x, line) of each, and the number of lines."""
    places, x, line = [], 0, 0
    for entry in entries:
        step = SWATCH + 5 + round(font.getlength(entry)) + 16
        if x and x + step > width:
            x, line = 0, line + 1
        places.append((x, line))
        x += step
    return places, line + 1
