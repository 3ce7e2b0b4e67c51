"""Images side by side: sheets of them, and grids with headings and legends."""

from collections.abc import Sequence
from typing import NamedTuple

from PIL import Image, ImageDraw

from err_seg.visualization.legend import BACKGROUND, Entry, draw_legend
from err_seg.visualization.text import drawable

CELL, GAP, HEADING, LINE = 256, 10, 30, 20
TEXT, HEADING_TEXT = 13, 14


class GridRow(NamedTuple):
    """Panels that show one thing, of one size, and their legends: one below each, or a single one across the row."""

    panels: Sequence[Image.Image]
    legends: Sequence[Sequence[Entry]]


def fitting_size(size: tuple[int, int], cell: int = CELL) -> tuple[int, int]:
    """Scale an image's size, (width, height) or (height, width), so that its longer side has ``cell`` pixels."""
    scale = cell / max(size)
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def sheet(panels: Sequence[Image.Image], columns: int, cell: tuple[int, int]) -> Image.Image:
    """Put images on white paper, row by row, each into the upper left corner of a cell of (width, height) pixels."""
    paper = Image.new("RGB", (columns * cell[0], -(-len(panels) // columns) * cell[1]), BACKGROUND)
    for place, panel in enumerate(panels):
        paper.paste(panel, (place % columns * cell[0], place // columns * cell[1]))
    return paper


def lay_out(
    headings: Sequence[Sequence[str]], rows: Sequence[GridRow], note: str = "", cell: int = CELL
) -> Image.Image:
    """Put a grid together.

    Args:
        headings: the lines above each column.
        rows: with as many panels as there are columns, none larger than a cell.
        note: a line at the bottom, in gray.
        cell: the columns' width in pixels.
    """
    heading = HEADING + (max(map(len, headings)) - 1) * LINE
    width = len(headings) * (cell + GAP) + GAP
    drawn = [_draw_row(row, width, cell) for row in rows]
    grid = Image.new("RGB", (width, heading + sum(row.height for row in drawn) + LINE * bool(note)), BACKGROUND)
    draw = ImageDraw.Draw(grid)
    for column, lines in enumerate(headings):
        for number, line in enumerate(lines):
            center = GAP + column * (cell + GAP) + cell // 2, HEADING // 2 + number * LINE
            text, font = drawable(line, HEADING_TEXT)
            draw.text(center, text, "black", font, "mm")
    top = heading
    for row in drawn:
        grid.paste(row, (0, top))
        top += row.height
    text, font = drawable(note, TEXT)
    draw.text((GAP, top), text, "gray", font)
    return grid


def _draw_row(row: GridRow, width: int, cell: int) -> Image.Image:
    room = width - 2 * GAP if len(row.legends) == 1 else cell
    legends = [draw_legend(entries, room, TEXT) if entries else None for entries in row.legends]
    height = max(panel.height for panel in row.panels)
    image = Image.new("RGB", (width, height + 2 * GAP + max(x.height if x else LINE for x in legends)), BACKGROUND)
    for column, panel in enumerate(row.panels):
        image.paste(panel, (GAP + column * (cell + GAP) + (cell - panel.width) // 2, 0))
    for column, legend in enumerate(legends):
        if legend is not None:
            image.paste(legend, (GAP + column * (cell + GAP), height + GAP // 2))
    return image
