"""Scenes and crops of the miniature world: what they show and where, drawn on demand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from err_seg.data.dataset import Sample
from err_seg.data.mini_shapes import LEVELS, WALL_COLOURS, Canvas
from err_seg.data.mini_vocabulary import ATTRIBUTES, CLASS_SETS, OBJECTS, PROMPTS, VOCABULARY

SPLITS: tuple[str, ...] = ("train", "val", "test")

# The streams of random numbers.
_PLAN, _PAINT, _CROP, _WALLS, _OBJECTS, _CROPS = range(6)

# Eight scenes to a cycle. Counts rather than draws, so that classes can be dealt like cards: see _dealt.
_OBJECTS_PER_SCENE = (1, 2, 3, 4, 4, 3, 2, 1)
_WALLS_PER_SCENE = (1, 1, 2, 2, 1, 1, 2, 2)
_SMALLEST, _LARGEST = 24, 72  # diameters of objects in pixels


class Thing(NamedTuple):
    """An object in a scene: its class (index into ``VOCABULARY``), centre (x, y) and radius in pixels."""

    class_index: int
    centre: tuple[float, float]
    radius: float


class Plan(NamedTuple):
    """What a scene will show: size in pixels, one or two walls (indices into ``VOCABULARY``), and the objects."""

    height: int
    width: int
    walls: list[int]
    things: list[Thing]


def _choose(what: str, value: str, options: Sequence[str]) -> str:
    if value not in options:
        raise ValueError(f"miniature world: {what} must be one of {', '.join(options)}; found {value!r}")
    return value


def _at_least(what: str, value: int, least: int) -> int:
    if value < least:
        raise ValueError(f"miniature world: {what} must be {least} or more; found {value}")
    return value


def _random(seed: int, *stream: int) -> np.random.Generator:
    """A generator of its own for every stream: (purpose, split, index)."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed, spawn_key=stream)))


def _dealt(seed: int, stream: tuple[int, ...], cards: Sequence[int], counts: Sequence[int], index: int) -> list[int]:
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
            decks[deck] = _random(seed, *stream, deck).permutation(len(cards))
        hand.append(cards[decks[deck][card]])
    return hand


def _arrange(indices: Sequence[int], height: int, width: int, overlap: float, rng: np.random.Generator) -> list[Thing]:
    """Find each object a place with room to be seen, shrinking it where there is none; largest first, small on top."""
    largest = min(_LARGEST, 0.85 * min(height, width) / max(1, len(indices)) ** 0.5)
    things: list[Thing] = []
    for index in indices:
        radius = rng.uniform(_SMALLEST, largest) / 2
        margin = 0.9 * radius  # a tip may touch the picture's edge
        places = rng.uniform((margin, margin), (width - margin, height - margin), (40, 2))
        room = np.full(len(places), np.inf)
        for other in things:
            distance = np.hypot(*(places - other.centre).T) / (1 - overlap)
            room = np.minimum(room, distance - other.radius)
        best = np.argmax(room >= radius) if (room >= radius).any() else np.argmax(room)
        x, y = places[best].tolist()
        things.append(Thing(index, (x, y), float(max(_SMALLEST / 2, min(radius, room[best])))))
    return sorted(things, key=lambda thing: -thing.radius)


class MiniScenes:
    """Scenes of one or two walls and one to four objects, densely labelled. Map-style, drawn on demand.

    Stands in wherever :class:`err_seg.data.SegmentationPairs` is read from.

    Args:
        split: "train", "val" or "test"; tune on "val", report on "test".
        size: side in pixels, or (smallest, largest), between which height and width are drawn independently.
        classes: "seen" (24) or "all" (60): what is drawn, and what the labels index. By default "seen" for "train"
            and "all" for the others.
        level: "easy" or "hard".
        length: number of scenes. A longer data set begins with the scenes of a shorter one.
        seed: another world for every seed.

    Attributes:
        vocabulary: the class names that the labels index, in order.

    Raises:
        ValueError: an unknown split, class set or level, a side below 64, a length below 1 or a negative seed.
    """

    def __init__(
        self,
        split: str = "train",
        size: int | tuple[int, int] = (128, 192),
        classes: str | None = None,
        level: str = "easy",
        length: int = 1000,
        seed: int = 0,
    ) -> None:
        self.split = _choose("split", split, SPLITS)
        self.classes = _choose("classes", classes or ("seen" if split == "train" else "all"), list(CLASS_SETS))
        self.level = _choose("level", level, list(LEVELS))
        self.smallest, self.largest = (size, size) if isinstance(size, int) else size
        _at_least("size", self.smallest, 64)
        _at_least("size's second number", self.largest, self.smallest)
        self.length, self.seed = _at_least("length", length, 1), _at_least("seed", seed, 0)
        indices = CLASS_SETS[self.classes]
        self._objects = [i for i in indices if i in OBJECTS]
        self._walls = [i for i in indices if i not in OBJECTS]
        self._to_label = np.full(len(VOCABULARY), -1, np.int64)
        self._to_label[list(indices)] = np.arange(len(indices))
        self.vocabulary = tuple(VOCABULARY[i] for i in indices)

    def __len__(self) -> int:
        return self.length

    def plan(self, index: int) -> Plan:
        """What scene ``index`` shows, objects from back to front.

        Raises:
            IndexError: ``index`` outside of 0..length-1.
        """
        if not 0 <= index < self.length:
            raise IndexError(f"miniature world: scene {index} of {self.length}")
        split = SPLITS.index(self.split)
        rng = _random(self.seed, _PLAN, split, index)
        height, width = rng.integers(self.smallest, self.largest + 1, 2).tolist()
        walls = _dealt(self.seed, (_WALLS, split), self._walls, _WALLS_PER_SCENE, index)
        objects = _dealt(self.seed, (_OBJECTS, split), self._objects, _OBJECTS_PER_SCENE, index)
        return Plan(height, width, walls, _arrange(objects, height, width, LEVELS[self.level].overlap, rng))

    def __getitem__(self, index: int) -> Sample:
        """Draw scene ``index``; its paths are names only, there is no file. The label is dense: nothing is ignored."""
        plan = self.plan(index)
        rng = _random(self.seed, _PAINT, SPLITS.index(self.split), index)
        canvas = Canvas(plan.height, plan.width, rng, self.level)
        canvas.paint_wall(*ATTRIBUTES[plan.walls[0]], plan.walls[0])
        for wall in plan.walls[1:]:
            canvas.paint_wall(*ATTRIBUTES[wall], wall, _divide(canvas))
        for thing in plan.things:
            canvas.paint_object(*ATTRIBUTES[thing.class_index], thing.class_index, thing.centre, thing.radius)
        name = f"mini_world/{self.split}/{{}}/{index:05d}.png"
        return Sample(canvas.develop(), self._to_label[canvas.label], name.format("images"), name.format("labels"))


def _divide(canvas: Canvas) -> np.ndarray:
    """Signed distance (H, W) from a line through the middle half: upright, level or slanted, equally often."""
    height, width = canvas.label.shape
    angle = canvas.rng.choice([0, np.pi / 2, canvas.rng.uniform(0, np.pi)])
    x, y = canvas.rng.uniform(0.3, 0.7, 2) * (width, height)
    return (canvas.x - float(x)) * float(np.cos(angle)) + (canvas.y - float(y)) * float(np.sin(angle))


def render_crop(index: int, rng: np.random.Generator, size: int = 64, level: str = "easy") -> np.ndarray:
    """Draw one class on its own: an object before a wall (one time in four a plain one), or a wall's texture.

    Args:
        index: class, an index into ``VOCABULARY``.
        rng: source of scale, place, rotation, background, light and noise.
        size: side in pixels.
        level: "easy" or "hard".

    Returns:
        (size, size, 3) uint8 RGB.

    Raises:
        IndexError: there is no such class.
    """
    if not 0 <= index < len(VOCABULARY):
        raise IndexError(f"miniature world: class {index} of {len(VOCABULARY)}")
    canvas = Canvas(size, size, rng, level)
    if index not in OBJECTS:
        canvas.paint_wall(*ATTRIBUTES[index], index)
        return canvas.develop()
    if rng.random() < 0.25:
        grounds = [tone for tones in WALL_COLOURS.values() for tone in tones]
        canvas.paint_plain(grounds[rng.integers(len(grounds))])
    else:
        wall = int(rng.integers(len(OBJECTS), len(VOCABULARY)))
        canvas.paint_wall(*ATTRIBUTES[wall], wall)
    radius = rng.uniform(0.2, 0.46) * size
    x, y = (size / 2 + rng.uniform(-1, 1, 2) * min(0.12 * size, size / 2 - radius)).tolist()
    canvas.paint_object(*ATTRIBUTES[index], index, (x, y), radius)
    return canvas.develop()


class MiniCrops:
    """Captioned pictures of single classes, all 60, for teaching a small CLIP the words. Map-style, drawn on demand.

    Args:
        split: "train", "val" or "test".
        length: number of crops; any 60 that begin at a multiple of 60 show every class once.
        seed: another world for every seed.
        size: side in pixels.
        level: "easy" or "hard".

    Raises:
        ValueError: an unknown split or level, a length below 1, a negative seed or a size below 32.
    """

    def __init__(
        self, split: str = "train", length: int = 6000, seed: int = 0, size: int = 64, level: str = "easy"
    ) -> None:
        self.split = _choose("split", split, SPLITS)
        self.level = _choose("level", level, list(LEVELS))
        self.length, self.seed = _at_least("length", length, 1), _at_least("seed", seed, 0)
        self.size = _at_least("size", size, 32)

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> tuple[np.ndarray, int, str]:
        """Crop ``index``: picture (size, size, 3) uint8 RGB, class (index into ``VOCABULARY``), caption."""
        if not 0 <= index < self.length:
            raise IndexError(f"miniature world: crop {index} of {self.length}")
        split = SPLITS.index(self.split)
        rng = _random(self.seed, _CROP, split, index)
        (target,) = _dealt(self.seed, (_CROPS, split), range(len(VOCABULARY)), (1,), index)
        caption = PROMPTS[rng.integers(len(PROMPTS))].format(VOCABULARY[target])
        return render_crop(target, rng, self.size, self.level), target, caption
