"""The names of the miniature world, what they look like, and which of them are seen in training.

There are sixty, and up to 11,712 for experiments with long vocabularies. The latter are all of "red star", "red star
with blue dots", "red wall" and "red wall with blue dots": 16 colours x (11 shapes and "wall") x (plain, or 15 other
colours x 4 patterns). They stand in one shuffled order, of which a vocabulary of T names has the first T. Every second
name is seen, in pre-training as in the training of segmentation; the others are new combinations of words that both
have seen.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np

from err_seg.mini.shapes import COLOURS, MORE_SHAPES, OBJECT_COLOURS, PATTERNS, SHAPES, TEXTURES, WALL_COLOURS, Look

_OBJECTS = [(colour, shape) for colour in OBJECT_COLOURS for shape in SHAPES]
_WALLS = [(colour, texture) for colour in WALL_COLOURS for texture in TEXTURES]
ATTRIBUTES: tuple[tuple[str, str], ...] = (*_OBJECTS, *_WALLS)
"""(colour, shape) of the 48 objects, then (colour, texture) of the 12 walls: the sixty classes in label order."""

VOCABULARY: tuple[str, ...] = (
    *(f"{colour} {shape}" for colour, shape in _OBJECTS),
    *(f"{colour} {texture} wall" for colour, texture in _WALLS),
)
"""Their names."""
SIXTY = len(VOCABULARY)

NEW_WORDS: tuple[str, ...] = (list(OBJECT_COLOURS)[-1], list(SHAPES)[-1], list(TEXTURES)[-1])
"""The words that no class seen in training has: "purple", "ring", "dotted"."""

PROMPTS: tuple[str, ...] = (
    "A photo of a {} in the scene",
    "A photo of a {}",
    "A picture of a {}",
    "There is a {} in the picture",
    "A {}",
)
"""Captions of the crops; the first is the segmentation model's own prompt."""


def _is_seen(index: int) -> bool:
    """Whether a class is seen. Every word but the new ones is in two or more seen classes and in an unseen one."""
    colour, kind = ATTRIBUTES[index]
    if colour in NEW_WORDS or kind in NEW_WORDS:
        return False
    if index < len(_OBJECTS):  # three shapes for one colour, two for the next, starting two shapes further each time
        row, column = list(OBJECT_COLOURS).index(colour), list(SHAPES).index(kind)
        return (column - 2 * row) % (len(SHAPES) - 1) < 3 - row % 2
    row, column = list(WALL_COLOURS).index(colour), list(TEXTURES).index(kind)
    return (column - row) % (len(TEXTURES) - 1) < 2


SEEN: tuple[int, ...] = tuple(i for i in range(SIXTY) if _is_seen(i))
"""Indices of the 24 classes that segmentation training sees: 18 objects, 6 walls."""

UNSEEN: tuple[int, ...] = tuple(i for i in range(SIXTY) if i not in SEEN)
"""The 36 others: ``UNSEEN_COMBINATIONS`` and ``UNSEEN_WORDS`` together."""

UNSEEN_WORDS: tuple[int, ...] = tuple(i for i in UNSEEN if set(ATTRIBUTES[i]) & set(NEW_WORDS))
"""Indices of the 16 classes that contain one of ``NEW_WORDS``."""

UNSEEN_COMBINATIONS: tuple[int, ...] = tuple(i for i in UNSEEN if i not in UNSEEN_WORDS)
"""Indices of the 20 classes whose words are all seen, though never together."""

CLASS_SETS = ("seen", "all")
"""What scenes and crops may be drawn from."""

NUM_SHOWN = 100
"""How many names of a long vocabulary are drawn in scenes of all classes; the others are distractors."""


@dataclass(frozen=True)
class MiniVocabulary:
    """Names and what they look like.

    Attributes:
        names: the T class names, in label order.
        looks: what each looks like.
        seen: indices of those that segmentation training sees.
    """

    names: tuple[str, ...]
    looks: tuple[Look, ...]
    seen: tuple[int, ...]

    @cached_property
    def walls(self) -> tuple[int, ...]:
        """Indices of the walls; all other classes are objects."""
        return tuple(self.split(range(len(self.looks)))[0])

    def labels(self, classes: str) -> tuple[int, ...]:
        """Indices of the names that labels of a class set, "seen" or "all", stand for, in label order."""
        return self.seen if classes == "seen" else tuple(range(len(self.names)))

    def drawn(self, classes: str) -> tuple[int, ...]:
        """Indices of the names that are drawn in scenes of a class set."""
        return self.seen if classes == "seen" else self.labels(classes)[:NUM_SHOWN]

    def split(self, indices: Sequence[int]) -> tuple[list[int], list[int]]:
        """Separate the walls from the objects."""
        walls = [i for i in indices if self.looks[i].shape == "wall"]
        return walls, [i for i in indices if self.looks[i].shape != "wall"]


@cache
def mini_vocabulary(names: int = SIXTY) -> MiniVocabulary:
    """Return the vocabulary of so many names: 60, or 100 to :data:`MOST_NAMES`.

    Raises:
        ValueError: there is none with so many.
    """
    if names == SIXTY:
        objects = [Look(shape, OBJECT_COLOURS[colour]) for colour, shape in _OBJECTS]
        walls = [Look("wall", ground, texture, tone) for ground, tone in WALL_COLOURS.values() for texture in TEXTURES]
        return MiniVocabulary(VOCABULARY, (*objects, *walls), SEEN)
    if not NUM_SHOWN <= names <= MOST_NAMES:
        raise ValueError(f"miniature world: names must be {SIXTY}, or {NUM_SHOWN} to {MOST_NAMES}; found {names!r}")
    texts, looks = zip(*_COMBINATIONS[:names], strict=True)
    return MiniVocabulary(texts, looks, tuple(range(0, names, 2)))


def _combinations() -> list[tuple[str, Look]]:
    """List all names of the long vocabularies and what they look like, in their shuffled order."""
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
    order = np.random.Generator(np.random.PCG64(0)).permutation(len(found))
    return [found[i] for i in order]


_COMBINATIONS = _combinations()
MOST_NAMES = len(_COMBINATIONS)
"""How many names there are: 11,712."""


def words(names: int = SIXTY) -> tuple[str, ...]:
    """List every word of so many names and of the captions, lower case, sorted."""
    texts = (*PROMPTS, *mini_vocabulary(names).names)
    return tuple(sorted({word.lower() for text in texts for word in text.split()} - {"{}"}))
