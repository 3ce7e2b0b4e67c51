"""Random numbers of scenes and crops: a stream for each purpose, and a balanced choice of classes."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from err_seg.mini.canvas import LEVELS
from err_seg.mini.vocabulary import CLASS_SETS, mini_vocabulary

SPLITS: tuple[str, ...] = ("train", "val", "test")
PLAN, PAINT, CROP, WALLS, OBJECTS, CROPS = range(6)
"""The streams of random numbers."""


def check_settings(drawn: Any) -> None:
    """Check what scenes and crops have in common: split, level, classes, length, seed and names.

    Raises:
        ValueError: one of them is unknown or too small.
    """
    for what, options in (("split", SPLITS), ("classes", CLASS_SETS), ("level", LEVELS)):
        if (value := getattr(drawn, what)) not in options:
            raise ValueError(f"miniature world: {what} must be one of {', '.join(options)}; found {value!r}")
    at_least("length", drawn.length, 1)
    at_least("seed", drawn.seed, 0)
    mini_vocabulary(drawn.names)


def at_least(what: str, value: int, least: int) -> None:
    """Raise ValueError unless a value is large enough."""
    if value < least:
        raise ValueError(f"miniature world: {what} must be {least} or more; found {value}")


def random(seed: int, purpose: int, split: str, *numbers: int) -> np.random.Generator:
    """A generator of its own for every purpose (a stream), split, and scene or crop."""
    key = (purpose, SPLITS.index(split), *numbers)
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed, spawn_key=key)))


def balanced_classes(
    seed: int, purpose: int, split: str, classes: Sequence[int], counts: Sequence[int], index: int
) -> list[int]:
    """The classes of scene ``index``: shuffled passes over all, so that over the scenes all come equally often.

    Scene i takes the next counts[i mod len(counts)] classes of the pass; at its end the next pass is shuffled.
    """
    cycle, place = divmod(index, len(counts))
    start = cycle * sum(counts) + sum(counts[:place])
    places = [divmod(position, len(classes)) for position in range(start, start + counts[place])]
    numbers = {number for number, _ in places}
    orders = {number: random(seed, purpose, split, number).permutation(len(classes)) for number in numbers}
    return [classes[orders[number][within]] for number, within in places]
