"""A legend: coloured squares, names in any script, shares of the area."""

from collections.abc import Sequence
from typing import NamedTuple

from PIL import Image, ImageDraw, ImageFont

from err_seg.visualization.text import drawable, shortened

Color = tuple[int, int, int]

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


class _Text(NamedTuple):
    """An entry as it is drawn: its name's font, its share as text, and the widths (pixels) of name and whole."""

    color: Color
    name: str
    font: ImageFont.FreeTypeFont
    ink: Color
    share: str
    name_width: float
    width: int


def draw_legend(entries: Sequence[Entry], width: int, size: int) -> Image.Image:
    """Draw a legend by itself, in as few lines as a width allows; a longer name makes it wider.

    Args:
        entries: at least one.
        width: in pixels.
        size: of the text, in pixels.
    """
    columns = _columns([_text(entry, size) for entry in entries], width)
    own = max(width, sum(_widths(columns)))
    image = Image.new("RGB", (own, len(columns[0]) * _line(size)), BACKGROUND)
    _draw(image, columns, size, (0, 0))
    return image


def add_legend(image: Image.Image, entries: Sequence[Entry], last: Sequence[Entry] = ()) -> Image.Image:
    """Append a legend below an image, in as few lines as the width allows; a narrow image gets white margins.

    The legend is no taller than the image, except that an image lower than a line of text gets one line. What does
    not fit, and any name after the first 24, is summed up at the end: "… and 12 more".

    Args:
        image: what the legend goes below.
        entries: the classes, largest first.
        last: entries to come after "… and 12 more".
    """
    if not entries and not last:
        return image
    size = min(max(SMALLEST, round(min(image.width, 1.5 * image.height) / LINES_PER_IMAGE)), LARGEST)
    line, padding = _line(size), size
    most = max(1, (image.height - padding) // line)
    columns = _fit(entries, last, size, most, image.width - padding)
    width = max(image.width, sum(_widths(columns)) + padding)
    canvas = Image.new("RGB", (width, image.height + len(columns[0]) * line + padding), BACKGROUND)
    canvas.paste(image, ((width - image.width) // 2, 0))
    _draw(canvas, columns, size, (padding // 2, image.height + padding // 2))
    return canvas


def _draw(image: Image.Image, columns: Sequence[Sequence[_Text]], size: int, corner: tuple[int, int]) -> None:
    """Draw columns of entries, starting at an upper left corner."""
    draw, (_, plain), widths = ImageDraw.Draw(image), drawable("", size), _widths(columns)
    for place, column in enumerate(columns):
        x = corner[0] + sum(widths[:place])
        for row, text in enumerate(column):
            y = corner[1] + row * _line(size)
            middle = y + _line(size) / 2
            square = (x, y + round(0.3 * size), x + size, y + round(0.3 * size) + size)
            draw.rounded_rectangle(square, radius=size // 4, fill=text.color, outline=FAINT)
            draw.text((x + 1.5 * size, middle), text.name, fill=text.ink, font=text.font, anchor="lm")
            draw.text((x + 2.1 * size + text.name_width, middle), text.share, fill=FAINT, font=plain, anchor="lm")


def _line(size: int) -> int:
    return round(1.6 * size)


def _widths(columns: Sequence[Sequence[_Text]]) -> list[int]:
    return [max(text.width for text in column) for column in columns]


def _fit(entries: Sequence[Entry], last: Sequence[Entry], size: int, most: int, room: int) -> list[list[_Text]]:
    """Arrange as many entries as fit into columns of at most ``most`` lines, within the width ``room`` where possible.

    Returns:
        The columns from the left, the first of them the longest.
    """
    texts, ends = [_text(entry, size) for entry in entries], [_text(entry, size) for entry in last]
    if len(texts) <= MOST_NAMES + 1:
        for width in (room, max(room, ROOM)):
            if len((columns := _columns([*texts, *ends], width))[0]) <= most:
                return columns
    for count in range(min(MOST_NAMES, len(texts) - 1), -1, -1):
        rest = entries[count:]
        more = Entry(OTHERS_COLOR, f"… and {len(rest)} more", sum(entry.share or 0.0 for entry in rest))
        for width in (room, max(room, ROOM)):
            if len((columns := _columns([*texts[:count], _text(more, size), *ends], width))[0]) <= most:
                return columns
    return columns


def _columns(texts: Sequence[_Text], room: int) -> list[list[_Text]]:
    """Set entries in as few lines as a width allows, in columns that are as wide as their own entries."""
    for lines in range(1, len(texts) + 1):
        columns = [list(texts[start : start + lines]) for start in range(0, len(texts), lines)]
        if sum(_widths(columns)) <= room:
            break
    return columns


def _text(entry: Entry, size: int) -> _Text:
    (name, font), (_, plain) = drawable(shortened(entry.name), size), drawable("", size)
    share, name_width = "" if entry.share is None else f"{entry.share:.1%}", font.getlength(name)
    margins = 3.6 if share else 2.5  # the square, and what is left blank, in sizes
    width = round(name_width + plain.getlength(share) + margins * size)
    return _Text(entry.color, name, font, entry.ink, share, name_width, width)
