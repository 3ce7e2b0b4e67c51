"""A vocabulary: class names in label order, and the colours that some of them were given."""

import re
from collections.abc import Iterable, Mapping

Color = tuple[int, int, int]


class Vocabulary(tuple[str, ...]):
    """The tuple of T class names, and equal to it.

    Attributes:
        colors: sRGB in 0..255 of the names that were given a colour, by their :func:`name_key`.
    """

    colors: Mapping[str, Color]

    def __new__(cls, names: Iterable[str] = (), colors: Mapping[str, Color] | None = None) -> "Vocabulary":
        """Make one of names; without ``colors``, with those of ``names``."""
        vocabulary = super().__new__(cls, names)
        vocabulary.colors = dict(getattr(names, "colors", {}) if colors is None else colors)
        return vocabulary


def synonyms_of(name: str) -> list[str]:
    """Split a class name at its commas, which join synonyms with or without a space; blank ones do not count."""
    return [synonym for synonym in re.split(r",\s*", name) if synonym.strip()]


def name_key(name: str) -> str:
    """Return what names of one colour have in common: neither case nor surrounding spaces count."""
    return name.strip().casefold()
