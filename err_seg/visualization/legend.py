"""A legend: coloured squares, names in any script, shares of the area."""

from collections.abc import Sequence
from typing import NamedTuple

from PIL import Image, ImageDraw, ImageFont

from err_seg.text.prompts import Color
from err_seg.visualization.text import drawable, shortened

BACKGROUND, INK, FAINT = (255, 255, 255), (30, 30, 30), (120, 120, 120)
OTHERS_COLOR = (200, 200, 200)
MOST_NAMES = 24
LINES_PER_IMAGE = 45  # the text is this fraction of the image's width high, and no more than suits a flat image
SMALLEST, LARGEST = 12, 60
ROOM = 480  # pixels that a legend may be wide below an image that is narrower


class Entry(NamedTuple):
    """An entry of a legend.

    Attributes:
        color: of the square, RGB.
        name: cut where it is long.
        share: of the area, in 0..1; ``None`` is not written.
        ink: the name's colour.
    """

    color: Color
    name: str
    share: float | None = None
    ink: Color = INK


class _Cell:
    """An entry as it is drawn: its name and share as text, the name's font and width, and the whole width (pixels)."""

    def __init__(self, entry: Entry, size: int):
        self.entry = entry
        self.name, self.font = drawable(shortened(entry.name), size)
        self.share = "" if entry.share is None else f"{entry.share:.1%}"
        self.share_font: ImageFont.FreeTypeFont = drawable("", size)[1]
        self.name_width = self.font.getlength(self.name)
        margins = 3.6 if self.share else 2.5  # the square, and what is left blank, in sizes
        self.width = round(self.name_width + self.share_font.getlength(self.share) + margins * size)

    def draw(self, draw: ImageDraw.ImageDraw, x: float, y: float, size: int) -> None:
        """Draw the entry with its upper left corner at a point."""
        middle, top = y + _line(size) / 2, y + round(0.3 * size)
        draw.rounded_rectangle((x, top, x + size, top + size), size // 4, fill=self.entry.color, outline=FAINT)
        draw.text((x + 1.5 * size, middle), self.name, fill=self.entry.ink, font=self.font, anchor="lm")
        share_x = x + 2.1 * size + self.name_width
        draw.text((share_x, middle), self.share, fill=FAINT, font=self.share_font, anchor="lm")


def draw_legend(entries: Sequence[Entry], width: int, size: int) -> Image.Image:
    """Draw a legend by itself, in as few lines as a width allows; a longer name makes it wider.

    There is at least one entry; the width and the text's size are in pixels.
    """
    return _drawn(_columns([_Cell(entry, size) for entry in entries], width), width, size)


def add_legend(image: Image.Image, entries: Sequence[Entry], last: Sequence[Entry] = ()) -> Image.Image:
    """Append a legend below an image, in as few lines as the width allows; a narrow image gets white margins.

    The legend is no taller than the image, except that an image lower than a line of text gets one line. What does
    not fit, and any name after the first 24, is summed up at the end: "… and 12 more". ``entries`` are the classes,
    largest first; those in ``last`` come after that sum.
    """
    if not entries and not last:
        return image
    size = min(max(SMALLEST, round(min(image.width, 1.5 * image.height) / LINES_PER_IMAGE)), LARGEST)
    padding = size
    most = max(1, (image.height - padding) // _line(size))
    legend = _drawn(_fit(entries, last, size, most, image.width - padding), 0, size)
    width = max(image.width, legend.width + padding)
    canvas = Image.new("RGB", (width, image.height + legend.height + padding), BACKGROUND)
    canvas.paste(image, ((width - image.width) // 2, 0))
    canvas.paste(legend, (padding // 2, image.height + padding // 2))
    return canvas


def _drawn(columns: Sequence[Sequence[_Cell]], width: int, size: int) -> Image.Image:
    """Draw columns of entries on white paper of at least a width."""
    image = Image.new("RGB", (max(width, sum(_widths(columns))), len(columns[0]) * _line(size)), BACKGROUND)
    draw, x = ImageDraw.Draw(image), 0
    for column, column_width in zip(columns, _widths(columns), strict=True):
        for row, cell in enumerate(column):
            cell.draw(draw, x, row * _line(size), size)
        x += column_width
    return image


def _line(size: int) -> int:
    return round(1.6 * size)


def _widths(columns: Sequence[Sequence[_Cell]]) -> list[int]:
    return [max(cell.width for cell in column) for column in columns]


def _fit(entries: Sequence[Entry], last: Sequence[Entry], size: int, most: int, room: int) -> list[list[_Cell]]:
    """Arrange as many entries as fit into columns of at most ``most`` lines, within the width ``room`` where possible.

    Returns:
        The columns from the left, the first of them the longest.
    """
    cells, ends = [_Cell(entry, size) for entry in entries], [_Cell(entry, size) for entry in last]
    # all of them, or the first ones and the sum of the rest
    counts = [len(cells)] if len(cells) <= MOST_NAMES + 1 else []
    for count in [*counts, *range(min(MOST_NAMES, len(cells) - 1), -1, -1)]:
        shown, rest = cells[:count], entries[count:]
        if rest:
            more = Entry(OTHERS_COLOR, f"… and {len(rest)} more", sum(entry.share or 0.0 for entry in rest))
            shown = [*shown, _Cell(more, size)]
        for width in (room, max(room, ROOM)):
            if len((columns := _columns([*shown, *ends], width))[0]) <= most:
                return columns
    return columns


def _columns(cells: Sequence[_Cell], room: int) -> list[list[_Cell]]:
    """Set entries in as few lines as a width allows, in columns that are as wide as their own entries."""
    for lines in range(1, len(cells) + 1):
        columns = [list(cells[start : start + lines]) for start in range(0, len(cells), lines)]
        if sum(_widths(columns)) <= room:
            break
    return columns
