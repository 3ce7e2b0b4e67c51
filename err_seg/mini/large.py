"""Large scenes of the miniature world: many things of the usual size, or few things that are as large as the scene."""

from dataclasses import dataclass

from err_seg.mini.canvas import LEVELS
from err_seg.mini.sampling import OBJECTS, PLAN, SPLITS, WALLS, dealt, random
from err_seg.mini.scenes import MiniScenes, Plan, Thing, arrange

_CLASSES_PER_SCENE = (8,)
_WALLS_PER_SCENE = (1, 2)
_AREA_PER_OBJECT = 100**2  # as on average in usual scenes


@dataclass(frozen=True)
class LargeScenes(MiniScenes):
    """Scenes with as many objects as they have room for, of at most eight classes each, on one or two walls.

    Attributes:
        zoom: how many times larger than usual everything is drawn. With 1, scenes of 1,000 pixels show a hundred small
            objects; with 6 they are usual scenes, as a sharper camera sees them.

    Raises:
        ValueError: as for :class:`MiniScenes`.
    """

    size: int | tuple[int, int] = (900, 1200)
    length: int = 24
    zoom: float = 1.0

    def plan(self, index: int) -> Plan:
        """What scene ``index`` shows, objects from back to front.

        Raises:
            IndexError: ``index`` outside of 0..length-1.
        """
        height, width, *_ = super().plan(index)
        split = SPLITS.index(self.split)
        rng = random(self.seed, PLAN, split, index, 1)
        walls = dealt(self.seed, (WALLS, split), self._cards[0], _WALLS_PER_SCENE, index)
        hand = dealt(self.seed, (OBJECTS, split), self._cards[1], _CLASSES_PER_SCENE, index)
        rows, columns = int(height / self.zoom), int(width / self.zoom)
        objects = [hand[number % len(hand)] for number in range(max(1, rows * columns // _AREA_PER_OBJECT))]
        things = arrange(objects, rows, columns, LEVELS[self.level].overlap, rng)
        return Plan(height, width, walls, [self._enlarged(thing) for thing in things], self.zoom)

    def _enlarged(self, thing: Thing) -> Thing:
        x, y = thing.centre
        return Thing(thing.class_index, (self.zoom * x, self.zoom * y), self.zoom * thing.radius)
