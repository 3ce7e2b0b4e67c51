"""The brush that paints walls and objects, and the levels of difficulty."""

import math
from typing import NamedTuple

import numpy as np

from err_seg.mini.shapes import MORE_SHAPES, PATTERNS, SHAPES, TEXTURES, Array, Look, ramp


class Level(NamedTuple):
    """How hard the images are. Angles in degrees, tones out of 255, the rest shares of 1."""

    object_tilt: float  # largest rotation of an object, either way
    wall_tilt: float  # largest rotation of a texture, either way
    tone_shift: float  # standard deviation of an object's or wall's own colour, per channel
    fading: float  # largest share by which an object's colour fades into the mean of what lies behind it
    overlap: float  # how far two objects' circles may run into one another
    lighting: float  # largest fall of light from the image's centre to its edge
    noise: float  # standard deviation of the sensor noise
    clutter: int  # largest number of thin lines drawn over everything, without a label


LEVELS: dict[str, Level] = {
    "easy": Level(12, 0, 3, 0.0, 0.10, 0.15, 4, 0),
    "hard": Level(40, 20, 8, 0.35, 0.25, 0.30, 14, 8),
}


_OUTLINES = SHAPES | MORE_SHAPES
_MARKS = TEXTURES | PATTERNS


class Canvas:
    """An image that is being painted: float32 RGB in 0..255, and an int64 label for every pixel.

    Args:
        height, width: in pixels.
        rng: source of everything random.
        level: a key of ``LEVELS``.
        zoom: how many times larger than usual the patterns of walls are.
    """

    def __init__(self, height: int, width: int, rng: np.random.Generator, level: str, zoom: float = 1.0) -> None:
        self.rng, self.level, self.zoom = rng, LEVELS[level], zoom
        self.image = np.zeros((height, width, 3), np.float32)
        self.label = np.zeros((height, width), np.int64)
        self.y = np.arange(height, dtype=np.float32)[:, None] + 0.5
        self.x = np.arange(width, dtype=np.float32)[None, :] + 0.5

    def _rotated(self, x: Array, y: Array, largest: float) -> tuple[Array, Array]:
        """Coordinates turned by a random angle of at most ``largest`` degrees either way."""
        if not largest:
            return x, y
        angle = math.radians(self.rng.uniform(-largest, largest))
        return x * math.cos(angle) + y * math.sin(angle), y * math.cos(angle) - x * math.sin(angle)

    def _tones(self, *colours: tuple[int, int, int]) -> Array:
        """The colours (N, 3) with one random shift in common: every object and wall is a little of its own colour."""
        shift = self.rng.normal(0, self.level.tone_shift, 3)
        return np.clip(np.array(colours) + shift, 0, 255).astype(np.float32)

    def _surface(self, look: Look, u: Array, v: Array, period: float) -> Array:
        """Colours at the places (u, v) in pixels: (H, W, 3), or (3,) without a pattern."""
        if not look.pattern:
            return self._tones(look.ground)[0]
        ground, pattern = self._tones(look.ground, look.tone)
        return ground + _MARKS[look.pattern](u, v, period)[..., None] * (pattern - ground)

    def paint_wall(self, look: Look, label: int, outside: Array | None = None) -> None:
        """Cover the image, or one side of a line, with a wall, and write its label there.

        ``outside`` is (H, W), a signed distance in pixels, negative where the wall is; ``None`` is everywhere.
        """
        period = self.zoom * self.rng.uniform(16, 24)
        phase_x, phase_y = self.rng.uniform(0, period, 2)
        u, v = self._rotated(self.x + float(phase_x), self.y + float(phase_y), self.level.wall_tilt)
        wall = self._surface(look, u, v, period)
        if outside is None:
            self.image[:], self.label[:] = wall, label
        else:
            self.image += ramp(outside)[..., None] * (wall - self.image)
            self.label[outside <= 0] = label

    def paint_plain(self, colour: tuple[int, int, int]) -> None:
        """Fill the image with one colour and leave the label as it is."""
        self.image[:] = self._tones(colour)

    def paint_object(self, look: Look, label: int, centre: tuple[float, float], radius: float) -> None:
        """Put an object on top of what is there, and its label inside the shape; what lies beyond the edge is lost.

        The circle around the shape has a centre (x, y) and a radius in pixels.
        """
        reach = radius + 1
        rows = slice(max(0, int(centre[1] - reach)), max(0, math.ceil(centre[1] + reach)))
        columns = slice(max(0, int(centre[0] - reach)), max(0, math.ceil(centre[0] + reach)))
        x, y = (self.x[:, columns] - centre[0]) / radius, (self.y[rows] - centre[1]) / radius
        u, v = self._rotated(x, y, self.level.object_tilt)
        outside = radius * _OUTLINES[look.shape](u, v)
        behind = self.image[rows, columns]
        surface = self._surface(look, radius * u, radius * v, 0.55 * radius)
        if self.level.fading:
            surface += self.rng.uniform(0, self.level.fading) * (behind.mean((0, 1)) - surface)
        behind += ramp(outside)[..., None] * (surface - behind)
        self.label[rows, columns][outside <= 0] = label

    def _scribble(self) -> None:
        """Thin lines in random colours over everything: clutter without a label."""
        height, width = self.label.shape
        for _ in range(self.rng.integers(self.level.clutter + 1)):
            x, y, angle, length = self.rng.uniform(0, 1, 4) * (width, height, math.pi, max(height, width) / 3)
            along = (self.x - x) * math.cos(angle) + (self.y - y) * math.sin(angle)
            across = (self.y - y) * math.cos(angle) - (self.x - x) * math.sin(angle)
            coverage = ramp(np.maximum(np.abs(along) - length / 2, np.abs(across) - 0.7)).astype(np.float32)
            self.image += coverage[..., None] * (self.rng.uniform(0, 255, 3).astype(np.float32) - self.image)

    def develop(self) -> Array:
        """Light and noise. Returns the finished image, (H, W, 3) uint8 RGB."""
        if self.level.clutter:
            self._scribble()
        height, width = self.label.shape
        fall, angle = self.rng.uniform(0, self.level.lighting), self.rng.uniform(0, 2 * math.pi)
        slope_x, slope_y = fall * math.cos(angle) * 2 / width, fall * math.sin(angle) * 2 / height
        light = self.rng.uniform(0.88, 1.04) + slope_x * (self.x - width / 2) + slope_y * (self.y - height / 2)
        noise = self.rng.standard_normal(self.image.shape, np.float32)
        return np.clip(self.image * light[..., None] + noise * self.level.noise + 0.5, 0, 255).astype(np.uint8)
