"""A legend below a picture: coloured squares, names in any script, figures."""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import matplotlib
from matplotlib.font_manager import findSystemFonts
from matplotlib.ft2font import FT2Font
from PIL import Image, ImageDraw, ImageFont

BACKGROUND, INK, FAINT = (255, 255, 255), (30, 30, 30), (120, 120, 120)
LONGEST_NAME = 32
LINES_PER_PICTURE = 45  # the text is this fraction of the picture's width high
SMALLEST, LARGEST = 12, 60


class Entry(NamedTuple):
    """A line of a legend: the square's RGB colour, a name, and a figure beside it."""

    color: tuple[int, int, int]
    name: str
    figure: str


def add_legend(image: Image.Image, entries: Sequence[Entry]) -> Image.Image:
    """Append a legend below a picture, in as many columns as the width allows; a narrow picture gets white margins."""
    size = min(max(SMALLEST, round(image.width / LINES_PER_PICTURE)), LARGEST)
    names = [drawable(_shortened(entry.name), size) for entry in entries]
    widths = [font.getlength(text) for text, font in names]
    plain = font_for("", size)
    line, padding = round(size * 1.6), size
    column = round(max(widths, default=0) + max((plain.getlength(e.figure) for e in entries), default=0) + 3.6 * size)
    columns = max(1, (image.width - padding) // column)
    rows = -(-len(entries) // columns)
    width = max(image.width, column + padding)
    canvas = Image.new("RGB", (width, image.height + rows * line + (padding if rows else 0)), BACKGROUND)
    canvas.paste(image, ((width - image.width) // 2, 0))
    draw = ImageDraw.Draw(canvas)
    for number, (entry, (text, font), length) in enumerate(zip(entries, names, widths, strict=True)):
        place, row = divmod(number, rows)
        x, y = padding // 2 + place * column, image.height + padding // 2 + row * line
        square = (x, y + round(0.3 * size), x + size, y + round(0.3 * size) + size)
        draw.rounded_rectangle(square, radius=size // 4, fill=entry.color, outline=FAINT)
        draw.text((x + 1.5 * size, y + line / 2), text, fill=INK, font=font, anchor="lm")
        draw.text((x + 2.1 * size + length, y + line / 2), entry.figure, fill=FAINT, font=plain, anchor="lm")
    return canvas


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
