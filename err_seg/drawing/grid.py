"""The layout of picture grids: headings, rows of panels of one width, and legends below them."""

from collections.abc import Sequence
from typing import NamedTuple

from PIL import Image, ImageDraw, ImageFont

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
Color = str | tuple[int, int, int]

CELL, GAP, HEADING, LINE, SWATCH = 256, 10, 30, 20, 12
BETWEEN_ENTRIES = 16


class Line(NamedTuple):
    """A line of a column's heading."""

    text: str
    font: Font


class Entry(NamedTuple):
    """An entry of a legend: the square's RGB colour, the text beside it, and the text's colour."""

    color: tuple[int, int, int]
    text: str
    font: Font
    ink: Color = "black"


class Row(NamedTuple):
    """Panels that show one thing, of one size, and their legends: one below each, or a single one across the row."""

    panels: Sequence[Image.Image]
    legends: Sequence[Sequence[Entry]]


def fitting_size(size: tuple[int, int], cell: int = CELL) -> tuple[int, int]:
    """Scale a picture's (width, height) so that its longer side is a cell's."""
    scale = cell / max(size)
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def lay_out(
    headings: Sequence[Sequence[Line]], rows: Sequence[Row], note: Line | None = None, cell: int = CELL
) -> Image.Image:
    """Put a grid together.

    Args:
        headings: the lines above each column.
        rows: with as many panels as there are columns, none larger than a cell.
        note: a line at the bottom, in gray.
        cell: the columns' width in pixels.

    Returns:
        The grid, an RGB image.
    """
    heading = HEADING + (max(map(len, headings)) - 1) * LINE
    width = len(headings) * (cell + GAP) + GAP
    drawn = [_draw_row(row, width, cell) for row in rows]
    grid = Image.new("RGB", (width, heading + sum(row.height for row in drawn) + LINE * (note is not None)), "white")
    draw = ImageDraw.Draw(grid)
    for column, lines in enumerate(headings):
        for number, line in enumerate(lines):
            center = GAP + column * (cell + GAP) + cell // 2, HEADING // 2 + number * LINE
            draw.text(center, line.text, "black", line.font, "mm")
    top = heading
    for row in drawn:
        grid.paste(row, (0, top))
        top += row.height
    if note is not None:
        draw.text((GAP, top), note.text, "gray", note.font)
    return grid


def _draw_row(row: Row, width: int, cell: int) -> Image.Image:
    room = width - 2 * GAP if len(row.legends) == 1 else cell
    flows = [_flow(entries, room) for entries in row.legends]
    height = max(panel.height for panel in row.panels)
    image = Image.new("RGB", (width, height + 2 * GAP + max(lines for _, lines in flows) * LINE), "white")
    for column, panel in enumerate(row.panels):
        image.paste(panel, (GAP + column * (cell + GAP) + (cell - panel.width) // 2, 0))
    draw = ImageDraw.Draw(image)
    for column, (entries, (places, _)) in enumerate(zip(row.legends, flows, strict=True)):
        for entry, (x, line) in zip(entries, places, strict=True):
            left, top = GAP + column * (cell + GAP) + x, height + GAP // 2 + line * LINE
            draw.rectangle((left, top + 2, left + SWATCH, top + 2 + SWATCH), fill=entry.color, outline="black")
            draw.text((left + SWATCH + 5, top), entry.text, entry.ink, entry.font)
    return image


def _flow(entries: Sequence[Entry], width: int) -> tuple[list[tuple[int, int]], int]:
    """Set legend entries one after the other into lines; gives (x, line) of each, and the number of lines."""
    places, x, line = [], 0, 0
    for entry in entries:
        step = SWATCH + 5 + round(entry.font.getlength(entry.text)) + BETWEEN_ENTRIES
        if x and x + step > width:
            x, line = 0, line + 1
        places.append((x, line))
        x += step
    return places, line + 1
