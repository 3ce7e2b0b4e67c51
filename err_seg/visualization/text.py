"""Names as they are drawn: short, and in a font that has their characters."""

from functools import lru_cache
from pathlib import Path

import matplotlib
from matplotlib.font_manager import findSystemFonts
from matplotlib.ft2font import FT2Font
from PIL import ImageFont

LONGEST_NAME = 32


def first_synonym(name: str) -> str:
    """Return what comes before the first comma of a class name."""
    return name.split(",")[0].strip()


def shortened(name: str, longest: int = LONGEST_NAME) -> str:
    """Cut a name that is longer than so many characters; the last one is then "…"."""
    return name if len(name) <= longest else name[: longest - 1].rstrip() + "…"


def drawable(text: str, size: int) -> tuple[str, ImageFont.FreeTypeFont]:
    """Return a text and a font that has all its characters; those that no font has are replaced by their codes."""
    font, lacking = _best_font(text)
    for character in lacking:
        text = text.replace(character, f"U+{ord(character):04X} ")
    return text.strip(), ImageFont.truetype(font, size)


def text_width(text: str, size: int) -> float:
    """Return how many pixels wide a text is drawn."""
    text, font = drawable(text, size)
    return font.getlength(text)


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
        ImageFont.truetype(path, 12)
        return frozenset(map(chr, FT2Font(path).get_charmap()))
    except (OSError, RuntimeError):
        return frozenset()
