"""A legend below a picture: coloured squares, names in any script, shares of the area."""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import matplotlib
from matplotlib.font_manager import findSystemFonts
from matplotlib.ft2font import FT2Font
from PIL import Image, ImageDraw, ImageFont

BACKGROUND, INK, FAINT = (255, 255, 255), (30, 30, 30), (120, 120, 120)
OTHERS_COLOR = (200, 200, 200)
LONGEST_NAME = 32
MOST_NAMES = 24
LINES_PER_PICTURE = 45  # the text is this fraction of the picture's width high, and no more than suits a flat picture
SMALLEST, LARGEST = 12, 60
ROOM = 480  # pixels that a legend may be wide below a picture that is narrower


class Entry(NamedTuple):
    """An entry of a legend: the square's RGB colour, a name, and its share of the area in 0..1."""

    color: tuple[int, int, int]
    name: str
    share: float


class _Text(NamedTuple):
    """An entry as it is drawn: its square's colour, name, font, share, and the pixels that the name and all take."""

    color: tuple[int, int, int]
    name: str
    font: ImageFont.FreeTypeFont
    share: str
    name_width: float
    width: int


def add_legend(image: Image.Image, entries: Sequence[Entry], last: Sequence[Entry] = ()) -> Image.Image:
    """Append a legend below a picture, in as few lines as the width allows; a narrow picture gets white margins.

    The legend is no taller than the picture, except that a picture lower than a line of text gets one line. What does
    not fit, and any name after the first 24, is summed up at the end: "… and 12 more".

    Args:
        image: the picture.
        entries: the classes, largest first.
        last: entries to come after "… and 12 more".
    """
    if not entries and not last:
        return image
    size = min(max(SMALLEST, round(min(image.width, 1.5 * image.height) / LINES_PER_PICTURE)), LARGEST)
    line, padding = round(size * 1.6), size
    most = max(1, (image.height - padding) // line)
    columns = _fit(entries, last, size, most, image.width - padding)
    widths = [max(text.width for text in column) for column in columns]
    width = max(image.width, sum(widths) + padding)
    canvas = Image.new("RGB", (width, image.height + len(columns[0]) * line + padding), BACKGROUND)
    canvas.paste(image, ((width - image.width) // 2, 0))
    draw, plain = ImageDraw.Draw(canvas), font_for("", size)
    for place, column in enumerate(columns):
        x = padding // 2 + sum(widths[:place])
        for row, text in enumerate(column):
            y = image.height + padding // 2 + row * line
            square = (x, y + round(0.3 * size), x + size, y + round(0.3 * size) + size)
            draw.rounded_rectangle(square, radius=size // 4, fill=text.color, outline=FAINT)
            draw.text((x + 1.5 * size, y + line / 2), text.name, fill=INK, font=text.font, anchor="lm")
            draw.text((x + 2.1 * size + text.name_width, y + line / 2), text.share, fill=FAINT, font=plain, anchor="lm")
    return canvas


def _fit(entries: Sequence[Entry], last: Sequence[Entry], size: int, most: int, room: int) -> list[list[_Text]]:
    """Arrange as many entries as fit into columns of at most so many lines, within a width where that can be.

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
        more = Entry(OTHERS_COLOR, f"… and {len(rest)} more", sum(entry.share for entry in rest))
        for width in (room, max(room, ROOM)):
            if len((columns := _columns([*texts[:count], _text(more, size), *ends], width))[0]) <= most:
                return columns
    return columns


def _columns(texts: Sequence[_Text], room: int) -> list[list[_Text]]:
    """Set entries in as few lines as a width allows, in columns that are as wide as their own entries."""
    for lines in range(1, len(texts) + 1):
        columns = [list(texts[start : start + lines]) for start in range(0, len(texts), lines)]
        if sum(max(text.width for text in column) for column in columns) <= room:
            break
    return columns


def _text(entry: Entry, size: int) -> _Text:
    name, font = drawable(_shortened(entry.name), size)
    share, name_width = f"{entry.share:.1%}", font.getlength(name)
    width = round(name_width + font_for("", size).getlength(share) + 3.6 * size)
    return _Text(entry.color, name, font, share, name_width, width)


def drawable(text: str, size: int) -> tuple[str, ImageFont.FreeTypeFont]:
    """Return a text and a font that has all its characters; those that no font has are replaced by their codes."""
    font, lacking = _best_font(text)
    for character in lacking:
        text = text.replace(character, f"U+{ord(character):04X} ")
    return text.strip(), ImageFont.truetype(font, size)


def font_for(text: str, size: int) -> ImageFont.FreeTypeFont:
    """Return the font that :func:`drawable` takes for a text."""
    return drawable(text, size)[1]


def _shortened(name: str) -> str:
    return name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 1].rstrip() + "…"


@lru_cache(maxsize=4096)
def _best_font(text: str) -> tuple[str, frozenset[str]]:
    """Find the font that has most of a text's characters (Matplotlib's own first), and those that it lacks."""
    wanted = {character for character in text if character.isprintable() and not character.isspace()}
    own = str(Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf"))
    best, lacking = own, frozenset(wanted - _characters(own))
    for path in _system_fonts() if lacking else ():
        if len(found := frozenset(wanted - _characters(path))) < len(lacking):
            best, lacking = path, found
        if not lacking:
            break
    return best, lacking


@lru_cache(maxsize=1)
def _system_fonts() -> tuple[str, ...]:
    return tuple(sorted(findSystemFonts()))


@lru_cache(maxsize=1024)
def _characters(path: str) -> frozenset[str]:
    """Return the characters of a font file; none where it cannot be drawn at any size."""
    try:
        ImageFont.truetype(path, SMALLEST)
        return frozenset(map(chr, FT2Font(path).get_charmap()))
    except (OSError, RuntimeError):
        return frozenset()
