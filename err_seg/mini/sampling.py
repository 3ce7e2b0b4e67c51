"""Random numbers of scenes and crops: a stream for each purpose, and classes that are dealt like cards."""

from collections.abc import Sequence

import numpy as np

SPLITS: tuple[str, ...] = ("train", "val", "test")
PLAN, PAINT, CROP, WALLS, OBJECTS, CROPS = range(6)
"""The streams of random numbers."""


def choose(what: str, value: str, options: Sequence[str]) -> None:
    """Raise ValueError unless a value is one of the options."""
    if value not in options:
        raise ValueError(f"miniature world: {what} must be one of {', '.join(options)}; found {value!r}")


def at_least(what: str, value: int, least: int) -> None:
    """Raise ValueError unless a value is large enough."""
    if value < least:
        raise ValueError(f"miniature world: {what} must be {least} or more; found {value}")


def random(seed: int, *stream: int) -> np.random.Generator:
    """A generator of its own for every stream: (purpose, split, index)."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed, spawn_key=stream)))


def dealt(seed: int, stream: tuple[int, ...], cards: Sequence[int], counts: Sequence[int], index: int) -> list[int]:
    """The classes of scene ``index``, dealt from shuffled decks so that over the scenes all come equally often.

    Scene i takes counts[i mod len(counts)] cards, in turn; when a deck is used up the next one is shuffled.
    """
    cycle, place = divmod(index, len(counts))
    start = cycle * sum(counts) + sum(counts[:place])
    decks: dict[int, np.ndarray] = {}
    hand = []
    for turn in range(start, start + counts[place]):
        deck, card = divmod(turn, len(cards))
        if deck not in decks:
            decks[deck] = random(seed, *stream, deck).permutation(len(cards))
        hand.append(cards[decks[deck][card]])
    return hand
