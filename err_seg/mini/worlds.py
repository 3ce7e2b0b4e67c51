"""Worlds of the miniature: the sixty classes, and up to 11,712 names that combine sixteen colours, shapes and patterns.

The names of a large world are all of "red star", "red star with blue dots", "red wall" and "red wall with blue dots":
16 colours x (11 shapes and "wall") x (plain, or 15 other colours x 4 patterns). They stand in one shuffled order, and
the world of T names has the first T: a larger world only adds names. Every second name is *seen*, in pre-training as in
the training of segmentation; the others are new combinations of words that both have seen.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np

from err_seg.mini import vocabulary as sixty
from err_seg.mini.shapes import COLOURS, MORE_SHAPES, OBJECT_COLOURS, PATTERNS, SHAPES, WALL_COLOURS, Look

SIXTY = len(sixty.VOCABULARY)
NUM_SHOWN = 100
"""How many names of a large world its scenes of all classes show; the others are distractors."""


@dataclass(frozen=True)
class World:
    """Names and what they look like.

    Attributes:
        vocabulary: the T class names, in label order.
        looks: what each looks like.
        seen: indices of those that segmentation training sees.
        shown: indices of those that scenes of all classes show.
    """

    vocabulary: tuple[str, ...]
    looks: tuple[Look, ...]
    seen: tuple[int, ...]
    shown: tuple[int, ...]

    @cached_property
    def walls(self) -> tuple[int, ...]:
        """Indices of the walls; all other classes are objects."""
        return tuple(i for i, look in enumerate(self.looks) if look.shape == "wall")

    def labels(self, classes: str) -> tuple[int, ...]:
        """Indices of the names that labels of a class set, "seen" or "all", stand for, in label order."""
        return self.seen if classes == "seen" else tuple(range(len(self.vocabulary)))

    def deck(self, classes: str) -> tuple[int, ...]:
        """Indices of the names that scenes of a class set show."""
        return self.seen if classes == "seen" else self.shown

    def split(self, indices: Sequence[int]) -> tuple[list[int], list[int]]:
        """Tell the walls from the objects."""
        return [i for i in indices if i in self._walls], [i for i in indices if i not in self._walls]

    @cached_property
    def _walls(self) -> frozenset[int]:
        return frozenset(self.walls)


@cache
def world(names: int = SIXTY) -> World:
    """Return the world of so many names: 60, or 100 to :data:`MOST_NAMES`.

    Raises:
        ValueError: there is none with so many.
    """
    if names == SIXTY:
        everything = tuple(range(SIXTY))
        return World(sixty.VOCABULARY, tuple(_look(*pair) for pair in sixty.ATTRIBUTES), sixty.SEEN, everything)
    if not NUM_SHOWN <= names <= MOST_NAMES:
        raise ValueError(f"miniature world: names must be {SIXTY}, or {NUM_SHOWN} to {MOST_NAMES}; found {names!r}")
    vocabulary, looks = zip(*(_NAMES[i] for i in _order()[:names]), strict=True)
    return World(vocabulary, looks, tuple(range(0, names, 2)), tuple(range(NUM_SHOWN)))


def _look(colour: str, kind: str) -> Look:
    if kind in SHAPES:
        return Look(kind, OBJECT_COLOURS[colour])
    ground, tone = WALL_COLOURS[colour]
    return Look("wall", ground, kind, tone)


def _combinations() -> list[tuple[str, Look]]:
    found = []
    for colour, ground in COLOURS.items():
        for shape in (*SHAPES, *MORE_SHAPES, "wall"):
            found.append((f"{colour} {shape}", Look(shape, ground)))
            found += [
                (f"{colour} {shape} with {other} {pattern}", Look(shape, ground, pattern, tone))
                for other, tone in COLOURS.items()
                if other != colour
                for pattern in PATTERNS
            ]
    return found


_NAMES = _combinations()
MOST_NAMES = len(_NAMES)
"""How many names there are: 11,712."""


@cache
def _order() -> list[int]:
    return np.random.Generator(np.random.PCG64(0)).permutation(MOST_NAMES).tolist()


def words(names: int) -> tuple[str, ...]:
    """List every word of a world's names and of the captions, lower case, sorted."""
    texts = (*sixty.PROMPTS, *world(names).vocabulary)
    return tuple(sorted({word.lower() for text in texts for word in text.split()} - {"{}"}))
