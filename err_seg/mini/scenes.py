"""Scenes of the miniature world, of usual size and large: what they show and where, drawn on demand."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from err_seg.data.dataset import Sample
from err_seg.mini.canvas import LEVELS, Canvas
from err_seg.mini.sampling import OBJECTS, PAINT, PLAN, WALLS, at_least, balanced_classes, check_settings, random
from err_seg.mini.vocabulary import SIXTY, MiniVocabulary, mini_vocabulary

# Eight scenes to a cycle. Counts rather than draws, so that classes can come equally often: see balanced_classes.
_OBJECTS_PER_SCENE = (1, 2, 3, 4, 4, 3, 2, 1)
_WALLS_PER_SCENE = (1, 1, 2, 2, 1, 1, 2, 2)
_SMALLEST, _LARGEST = 24, 72  # diameters of objects in pixels
_AREA_PER_OBJECT = 100**2  # of large scenes, as on average in usual ones


class Thing(NamedTuple):
    """An object in a scene: its class (index into the vocabulary), centre (x, y) and radius in pixels."""

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
            and "all" for the others. Of all names of a longer vocabulary, the first 100 are drawn.
        level: "easy" or "hard".
        length: number of scenes. A longer data set begins with the scenes of a shorter one.
        seed: other scenes for every seed.
        names: how many names the vocabulary has, see :func:`err_seg.mini.vocabulary.mini_vocabulary`.

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
        if not self.classes:
            object.__setattr__(self, "classes", "seen" if self.split == "train" else "all")
        check_settings(self)
        at_least("size", self.sides[0], 64)
        at_least("size's second number", self.sides[1], self.sides[0])

    @property
    def full_vocabulary(self) -> MiniVocabulary:
        """All names, drawn or not, and what they look like."""
        return mini_vocabulary(self.names)

    @property
    def sides(self) -> tuple[int, int]:
        """Smallest and largest side in pixels."""
        return (self.size, self.size) if isinstance(self.size, int) else self.size

    @property
    def vocabulary(self) -> tuple[str, ...]:
        """The class names that the labels index, in order."""
        return tuple(self.full_vocabulary.names[i] for i in self.full_vocabulary.labels(self.classes))

    @cached_property
    def _drawn(self) -> tuple[list[int], list[int]]:
        """The walls and the objects that are drawn, indices into the full vocabulary."""
        return self.full_vocabulary.split(self.full_vocabulary.drawn(self.classes))

    @cached_property
    def _to_label(self) -> np.ndarray:
        """The label of each class of the full vocabulary; -1 where labels do not index it."""
        indices = self.full_vocabulary.labels(self.classes)
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
        rng = random(self.seed, PLAN, self.split, index)
        height, width = rng.integers(self.sides[0], self.sides[1] + 1, 2).tolist()
        walls, objects = self._choose(index, _WALLS_PER_SCENE, _OBJECTS_PER_SCENE)
        return Plan(height, width, walls, arrange(objects, height, width, LEVELS[self.level].overlap, rng))

    def _choose(self, index: int, walls: Sequence[int], objects: Sequence[int]) -> tuple[list[int], list[int]]:
        """The walls and the objects of scene ``index``; of each, given how many the scenes of a cycle have."""
        return (
            balanced_classes(self.seed, WALLS, self.split, self._drawn[0], walls, index),
            balanced_classes(self.seed, OBJECTS, self.split, self._drawn[1], objects, index),
        )

    def __getitem__(self, index: int) -> Sample:
        """Draw scene ``index``; its paths are names only, there is no file. The label is dense: nothing is ignored."""
        plan = self.plan(index)
        rng = random(self.seed, PAINT, self.split, index)
        canvas = Canvas(plan.height, plan.width, rng, self.level, plan.zoom)
        looks = self.full_vocabulary.looks
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


@dataclass(frozen=True)
class LargeScenes(MiniScenes):
    """Scenes with as many objects as they have room for, of at most eight classes each, on one or two walls.

    Attributes:
        zoom: how many times larger than usual everything is drawn. With 1, scenes of 1,000 pixels show a hundred small
            objects; with 6 they are usual scenes, as a sharper camera sees them.
    """

    size: int | tuple[int, int] = (900, 1200)
    length: int = 24
    zoom: float = 1.0

    def plan(self, index: int) -> Plan:
        """What scene ``index`` shows, objects from back to front."""
        height, width, *_ = super().plan(index)
        rng = random(self.seed, PLAN, self.split, index, 1)
        walls, classes = self._choose(index, (1, 2), (8,))
        rows, columns = int(height / self.zoom), int(width / self.zoom)
        objects = [classes[i % len(classes)] for i in range(max(1, rows * columns // _AREA_PER_OBJECT))]
        things = [
            Thing(index, (self.zoom * x, self.zoom * y), self.zoom * radius)
            for index, (x, y), radius in arrange(objects, rows, columns, LEVELS[self.level].overlap, rng)
        ]
        return Plan(height, width, walls, things, self.zoom)
