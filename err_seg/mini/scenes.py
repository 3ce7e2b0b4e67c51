"""Scenes and crops of the miniature world: what they show and where, drawn on demand."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from err_seg.data.dataset import Sample
from err_seg.mini.shapes import LEVELS, WALL_COLOURS, Canvas
from err_seg.mini.vocabulary import ATTRIBUTES, CLASS_SETS, OBJECTS, PROMPTS, VOCABULARY

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


def _choose(what: str, value: str, options: Sequence[str]) -> None:
    if value not in options:
        raise ValueError(f"miniature world: {what} must be one of {', '.join(options)}; found {value!r}")


def _at_least(what: str, value: int, least: int) -> None:
    if value < least:
        raise ValueError(f"miniature world: {what} must be {least} or more; found {value}")


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
    """Place each object where it can be seen, shrinking it where there is no room; largest first, small on top."""
    largest = min(_LARGEST, 0.85 * min(height, width) / max(1, len(indices)) ** 0.5)
    things: list[Thing] = []
    for index in indices:
        radius = rng.uniform(_SMALLEST, largest) / 2
        margin = 0.9 * radius  # a tip may touch the image's edge
        places = rng.uniform((margin, margin), (width - margin, height - margin), (40, 2))
        room = np.full(len(places), np.inf)
        for other in things:
            distance = np.hypot(*(places - other.centre).T) / (1 - overlap)
            room = np.minimum(room, distance - other.radius)
        best = np.argmax(room >= radius) if (room >= radius).any() else np.argmax(room)
        x, y = places[best].tolist()
        things.append(Thing(index, (x, y), float(max(_SMALLEST / 2, min(radius, room[best])))))
    return sorted(things, key=lambda thing: -thing.radius)


@dataclass(frozen=True)
class MiniScenes:
    """Scenes of one or two walls and one to four objects, densely labelled. Map-style, drawn on demand.

    Stands in wherever :class:`err_seg.data.SegmentationPairs` is read from.

    Attributes:
        split: "train", "val" or "test"; tune on "val", report on "test".
        size: side in pixels, or (smallest, largest), between which height and width are drawn independently.
        classes: "seen" (24) or "all" (60): what is drawn, and what the labels index. By default "seen" for "train"
            and "all" for the others.
        level: "easy" or "hard".
        length: number of scenes. A longer data set begins with the scenes of a shorter one.
        seed: another world for every seed.

    Raises:
        ValueError: an unknown split, class set or level, a side below 64, a length below 1 or a negative seed.
    """

    split: str = "train"
    size: int | tuple[int, int] = (128, 192)
    classes: str = ""
    level: str = "easy"
    length: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        _choose("split", self.split, SPLITS)
        if not self.classes:
            object.__setattr__(self, "classes", "seen" if self.split == "train" else "all")
        _choose("classes", self.classes, list(CLASS_SETS))
        _choose("level", self.level, list(LEVELS))
        _at_least("size", self.sides[0], 64)
        _at_least("size's second number", self.sides[1], self.sides[0])
        _at_least("length", self.length, 1)
        _at_least("seed", self.seed, 0)

    @property
    def sides(self) -> tuple[int, int]:
        """Smallest and largest side in pixels."""
        return (self.size, self.size) if isinstance(self.size, int) else self.size

    @property
    def vocabulary(self) -> tuple[str, ...]:
        """The class names that the labels index, in order."""
        return tuple(VOCABULARY[i] for i in CLASS_SETS[self.classes])

    @cached_property
    def _cards(self) -> tuple[list[int], list[int]]:
        """The walls and the objects that are drawn, indices into ``VOCABULARY``."""
        indices = CLASS_SETS[self.classes]
        return [i for i in indices if i not in OBJECTS], [i for i in indices if i in OBJECTS]

    @cached_property
    def _to_label(self) -> np.ndarray:
        """The label of each class of ``VOCABULARY``; -1 where it is not drawn."""
        indices = CLASS_SETS[self.classes]
        labels = np.full(len(VOCABULARY), -1, np.int64)
        labels[list(indices)] = np.arange(len(indices))
        return labels

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
        height, width = rng.integers(self.sides[0], self.sides[1] + 1, 2).tolist()
        walls = _dealt(self.seed, (_WALLS, split), self._cards[0], _WALLS_PER_SCENE, index)
        objects = _dealt(self.seed, (_OBJECTS, split), self._cards[1], _OBJECTS_PER_SCENE, index)
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


@dataclass(frozen=True)
class MiniCrops:
    """Captioned images of single classes, all 60, for teaching a small CLIP the words. Map-style, drawn on demand.

    Attributes:
        split: "train", "val" or "test".
        length: number of crops; any 60 that begin at a multiple of 60 show every class once.
        seed: another world for every seed.
        size: side in pixels.
        level: "easy" or "hard".

    Raises:
        ValueError: an unknown split or level, a length below 1, a negative seed or a size below 32.
    """

    split: str = "train"
    length: int = 6000
    seed: int = 0
    size: int = 64
    level: str = "easy"

    def __post_init__(self) -> None:
        _choose("split", self.split, SPLITS)
        _choose("level", self.level, list(LEVELS))
        _at_least("length", self.length, 1)
        _at_least("seed", self.seed, 0)
        _at_least("size", self.size, 32)

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> tuple[np.ndarray, int, str]:
        """Crop ``index``: image (size, size, 3) uint8 RGB, class (index into ``VOCABULARY``), caption."""
        if not 0 <= index < self.length:
            raise IndexError(f"miniature world: crop {index} of {self.length}")
        split = SPLITS.index(self.split)
        rng = _random(self.seed, _CROP, split, index)
        (target,) = _dealt(self.seed, (_CROPS, split), range(len(VOCABULARY)), (1,), index)
        caption = PROMPTS[rng.integers(len(PROMPTS))].format(VOCABULARY[target])
        return render_crop(target, rng, self.size, self.level), target, caption
