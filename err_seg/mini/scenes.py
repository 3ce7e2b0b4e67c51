"""Scenes of the miniature world: what they show and where, drawn on demand."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from err_seg.data.dataset import Sample
from err_seg.mini.canvas import LEVELS, Canvas
from err_seg.mini.sampling import OBJECTS, PAINT, PLAN, SPLITS, WALLS, at_least, choose, dealt, random
from err_seg.mini.vocabulary import CLASS_SETS
from err_seg.mini.worlds import SIXTY, World, world

# Eight scenes to a cycle. Counts rather than draws, so that classes can be dealt like cards: see _dealt.
_OBJECTS_PER_SCENE = (1, 2, 3, 4, 4, 3, 2, 1)
_WALLS_PER_SCENE = (1, 1, 2, 2, 1, 1, 2, 2)
_SMALLEST, _LARGEST = 24, 72  # diameters of objects in pixels


class Thing(NamedTuple):
    """An object in a scene: its class (index into the world's vocabulary), centre (x, y) and radius in pixels."""

    class_index: int
    centre: tuple[float, float]
    radius: float


class Plan(NamedTuple):
    """What a scene will show: size in pixels, one or two walls (indices as above), the objects, the walls' scale."""

    height: int
    width: int
    walls: list[int]
    things: list[Thing]
    zoom: float = 1.0


def arrange(indices: Sequence[int], height: int, width: int, overlap: float, rng: np.random.Generator) -> list[Thing]:
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
        classes: "seen" (24 of 60) or "all": what is drawn, and what the labels index. By default "seen" for "train"
            and "all" for the others. Of all names of a large world, the first 100 are drawn.
        level: "easy" or "hard".
        length: number of scenes. A longer data set begins with the scenes of a shorter one.
        seed: another world for every seed.
        names: how many names the world has, see :func:`err_seg.mini.worlds.world`.

    Raises:
        ValueError: an unknown split, class set, level or number of names, a side below 64, a length below 1 or a
            negative seed.
    """

    split: str = "train"
    size: int | tuple[int, int] = (128, 192)
    classes: str = ""
    level: str = "easy"
    length: int = 1000
    seed: int = 0
    names: int = SIXTY

    def __post_init__(self) -> None:
        choose("split", self.split, SPLITS)
        if not self.classes:
            object.__setattr__(self, "classes", "seen" if self.split == "train" else "all")
        choose("classes", self.classes, list(CLASS_SETS))
        choose("level", self.level, list(LEVELS))
        at_least("size", self.sides[0], 64)
        at_least("size's second number", self.sides[1], self.sides[0])
        at_least("length", self.length, 1)
        at_least("seed", self.seed, 0)
        world(self.names)

    @property
    def world(self) -> World:
        """The names and what they look like."""
        return world(self.names)

    @property
    def sides(self) -> tuple[int, int]:
        """Smallest and largest side in pixels."""
        return (self.size, self.size) if isinstance(self.size, int) else self.size

    @property
    def vocabulary(self) -> tuple[str, ...]:
        """The class names that the labels index, in order."""
        return tuple(self.world.vocabulary[i] for i in self.world.labels(self.classes))

    @cached_property
    def _cards(self) -> tuple[list[int], list[int]]:
        """The walls and the objects that are drawn, indices into the world's vocabulary."""
        return self.world.split(self.world.deck(self.classes))

    @cached_property
    def _to_label(self) -> np.ndarray:
        """The label of each class of the world; -1 where it is not drawn."""
        indices = self.world.labels(self.classes)
        labels = np.full(self.names, -1, np.int64)
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
        rng = random(self.seed, PLAN, split, index)
        height, width = rng.integers(self.sides[0], self.sides[1] + 1, 2).tolist()
        walls = dealt(self.seed, (WALLS, split), self._cards[0], _WALLS_PER_SCENE, index)
        objects = dealt(self.seed, (OBJECTS, split), self._cards[1], _OBJECTS_PER_SCENE, index)
        return Plan(height, width, walls, arrange(objects, height, width, LEVELS[self.level].overlap, rng))

    def __getitem__(self, index: int) -> Sample:
        """Draw scene ``index``; its paths are names only, there is no file. The label is dense: nothing is ignored."""
        plan = self.plan(index)
        rng = random(self.seed, PAINT, SPLITS.index(self.split), index)
        canvas = Canvas(plan.height, plan.width, rng, self.level, plan.zoom)
        looks = self.world.looks
        canvas.paint_wall(looks[plan.walls[0]], plan.walls[0])
        for wall in plan.walls[1:]:
            canvas.paint_wall(looks[wall], wall, _divide(canvas))
        for thing in plan.things:
            canvas.paint_object(looks[thing.class_index], thing.class_index, thing.centre, thing.radius)
        name = f"mini_world/{self.split}/{{}}/{index:05d}.png"
        return Sample(canvas.develop(), self._to_label[canvas.label], name.format("images"), name.format("labels"))


def _divide(canvas: Canvas) -> np.ndarray:
    """Signed distance (H, W) from a line through the middle half: upright, level or slanted, equally often."""
    height, width = canvas.label.shape
    angle = canvas.rng.choice([0, np.pi / 2, canvas.rng.uniform(0, np.pi)])
    x, y = canvas.rng.uniform(0.3, 0.7, 2) * (width, height)
    return (canvas.x - float(x)) * float(np.cos(angle)) + (canvas.y - float(y)) * float(np.sin(angle))
