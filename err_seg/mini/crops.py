"""Crops of the miniature world: captioned images of single classes, drawn on demand."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from err_seg.mini.canvas import Canvas
from err_seg.mini.sampling import CROP, CROPS, at_least, balanced_classes, check_settings, random
from err_seg.mini.shapes import WALL_COLOURS
from err_seg.mini.vocabulary import PROMPTS, SIXTY, mini_vocabulary


def render_crop(
    index: int,
    rng: np.random.Generator,
    size: int = 64,
    level: str = "easy",
    names: int = SIXTY,
    backgrounds: Sequence[int] = (),
) -> np.ndarray:
    """Draw one class on its own: an object before a wall (one time in four a plain one), or a wall's texture.

    Args:
        index: class, an index into the vocabulary.
        rng: source of scale, place, rotation, background, light and noise.
        size, level, names: as for :class:`MiniCrops`.
        backgrounds: the walls that an object may stand before; () is all.

    Returns:
        (size, size, 3) uint8 RGB.

    Raises:
        IndexError: there is no such class.
    """
    if not 0 <= index < names:
        raise IndexError(f"miniature world: class {index} of {names}")
    looks = mini_vocabulary(names).looks
    canvas = Canvas(size, size, rng, level)
    if looks[index].shape == "wall":
        canvas.paint_wall(looks[index], index)
        return canvas.develop()
    if rng.random() < 0.25:
        grounds = [tone for tones in WALL_COLOURS.values() for tone in tones]
        canvas.paint_plain(grounds[rng.integers(len(grounds))])
    else:
        walls = backgrounds or mini_vocabulary(names).walls
        wall = walls[int(rng.integers(len(walls)))]
        canvas.paint_wall(looks[wall], wall)
    radius = rng.uniform(0.2, 0.46) * size
    x, y = (size / 2 + rng.uniform(-1, 1, 2) * min(0.12 * size, size / 2 - radius)).tolist()
    canvas.paint_object(looks[index], index, (x, y), radius)
    return canvas.develop()


@dataclass(frozen=True)
class MiniCrops:
    """Captioned images of single classes, for teaching a small CLIP the words. Map-style, drawn on demand.

    Attributes:
        split, seed, level, names: as for :class:`err_seg.mini.scenes.MiniScenes`.
        length: number of crops; of T classes, any T that begin at a multiple of T show every class once.
        size: side in pixels.
        classes: "all", or "seen" alone.

    Raises:
        ValueError: an unknown split, class set, level or number of names, a length below 1, a negative seed or a size
            below 32.
    """

    split: str = "train"
    length: int = 6000
    seed: int = 0
    size: int = 64
    level: str = "easy"
    names: int = SIXTY
    classes: str = "all"

    def __post_init__(self) -> None:
        check_settings(self)
        at_least("size", self.size, 32)

    @cached_property
    def _classes(self) -> tuple[int, ...]:
        return mini_vocabulary(self.names).labels(self.classes)

    @cached_property
    def _backgrounds(self) -> list[int]:
        return mini_vocabulary(self.names).split(self._classes)[0]

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> tuple[np.ndarray, int, str]:
        """Crop ``index``: image (size, size, 3) uint8 RGB, class (index into the vocabulary), caption."""
        if not 0 <= index < self.length:
            raise IndexError(f"miniature world: crop {index} of {self.length}")
        rng = random(self.seed, CROP, self.split, index)
        (target,) = balanced_classes(self.seed, CROPS, self.split, self._classes, (1,), index)
        caption = PROMPTS[rng.integers(len(PROMPTS))].format(mini_vocabulary(self.names).names[target])
        return render_crop(target, rng, self.size, self.level, self.names, self._backgrounds), target, caption
