"""Colours, shapes and textures of the miniature world, and the brush that paints them.

A shape is a signed distance: negative inside, positive outside, and measured in units of the object's radius. From
one distance come both the anti-aliased image (a one-pixel ramp across the edge) and the hard label (its sign).
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

Array = np.ndarray

# The last word of OBJECT_COLOURS, SHAPES and TEXTURES is the one that no class seen in training has.
OBJECT_COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (222, 22, 30),
    "green": (24, 150, 48),
    "blue": (30, 60, 225),
    "yellow": (252, 228, 20),
    "orange": (255, 130, 0),
    "cyan": (30, 215, 235),
    "black": (14, 14, 18),
    "purple": (128, 24, 178),
}

# Two tones of one colour: the texture's ground and its pattern.
WALL_COLOURS: dict[str, tuple[tuple[int, int, int], tuple[int, int, int]]] = {
    "pink": ((232, 112, 166), (255, 198, 222)),
    "gray": ((104, 104, 108), (188, 188, 192)),
    "brown": ((104, 60, 30), (184, 134, 92)),
}


def _wave(position: Array, period: float) -> Array:
    """Distance to the nearest multiple of ``period``."""
    return np.abs(np.mod(position + period / 2, period) - period / 2)


def _ramp(distance: Array) -> Array:
    """Coverage in [0, 1] of a pixel whose centre lies ``distance`` pixels outside an edge."""
    return np.clip(0.5 - distance, 0, 1)


def _circle(x: Array, y: Array) -> Array:
    return np.hypot(x, y) - 0.94


def _square(x: Array, y: Array) -> Array:
    return np.maximum(np.abs(x), np.abs(y)) - 0.8


def _triangle(x: Array, y: Array) -> Array:
    """Equilateral, tip up, its corners on the unit circle."""
    return np.maximum(y, 0.8660254 * np.abs(x) - 0.5 * y) - 0.5


def _star(x: Array, y: Array, inner: float = 0.36) -> Array:
    """Five points, one of them up; ``inner`` is the radius of the notches."""
    tenth = math.pi / 5
    folded = _wave(np.arctan2(x, -y), 2 * tenth)  # angle from the nearest tip: one half tip is all there is to draw
    notch = inner * math.cos(tenth), inner * math.sin(tenth)
    edge = math.hypot(1 - notch[0], notch[1])  # runs from the tip (1, 0) to the notch
    return np.hypot(x, y) * (notch[1] * np.cos(folded) + (1 - notch[0]) * np.sin(folded)) / edge - notch[1] / edge


def _cross(x: Array, y: Array, arm: float = 0.33) -> Array:
    x, y = np.abs(x), np.abs(y)
    return np.maximum(np.maximum(x, y) - 0.96, np.minimum(x, y) - arm)


def _ring(x: Array, y: Array) -> Array:
    return np.abs(np.hypot(x, y) - 0.73) - 0.24


SHAPES: dict[str, Callable[[Array, Array], Array]] = {
    "circle": _circle,
    "square": _square,
    "triangle": _triangle,
    "star": _star,
    "cross": _cross,
    "ring": _ring,
}


def _striped(u: Array, v: Array, period: float) -> Array:
    """Upright stripes, half of each tone."""
    return _ramp(_wave(u, period) - period / 4) + 0 * v  # the zero gives the pattern its height


def _checkered(u: Array, v: Array, period: float) -> Array:
    a, b = _ramp(_wave(u, period) - period / 4), _ramp(_wave(v, period) - period / 4)
    return a + b - 2 * a * b


def _brick(u: Array, v: Array, period: float) -> Array:
    """Running bond: every other course is shifted by half a brick; the pattern is the mortar."""
    height, length, mortar = 0.6 * period, 1.3 * period, 0.085 * period
    course = np.mod(np.floor(v / height), 2)
    joints = np.minimum(_wave(v, height), _wave(u + course * (length / 2), length))
    return _ramp(joints - mortar)


def _dotted(u: Array, v: Array, period: float) -> Array:
    return _ramp(np.hypot(_wave(u, period), _wave(v, period)) - 0.32 * period)


TEXTURES: dict[str, Callable[[Array, Array, float], Array]] = {
    "striped": _striped,
    "checkered": _checkered,
    "brick": _brick,
    "dotted": _dotted,
}


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


class Canvas:
    """An image that is being painted: float32 RGB in 0..255, and an int64 label for every pixel.

    Args:
        height: pixels.
        width: pixels.
        rng: source of everything random.
        level: a key of ``LEVELS``.
    """

    def __init__(self, height: int, width: int, rng: np.random.Generator, level: str) -> None:
        self.rng, self.level = rng, LEVELS[level]
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

    def paint_wall(self, colour: str, texture: str, label: int, outside: Array | None = None) -> None:
        """Cover the image, or one side of a line, with a textured wall.

        Args:
            colour: a key of ``WALL_COLOURS``.
            texture: a key of ``TEXTURES``.
            label: written wherever the wall shows.
            outside: (H, W) signed distance in pixels, negative where the wall is; None is everywhere.
        """
        period = self.rng.uniform(16, 24)
        phase_x, phase_y = self.rng.uniform(0, period, 2)
        u, v = self._rotated(self.x + float(phase_x), self.y + float(phase_y), self.level.wall_tilt)
        ground, pattern = self._tones(*WALL_COLOURS[colour])
        wall = ground + TEXTURES[texture](u, v, period)[..., None] * (pattern - ground)
        if outside is None:
            self.image[:], self.label[:] = wall, label
        else:
            self.image += _ramp(outside)[..., None] * (wall - self.image)
            self.label[outside <= 0] = label

    def paint_plain(self, colour: tuple[int, int, int]) -> None:
        """Fill the image with one colour and leave the label as it is."""
        self.image[:] = self._tones(colour)

    def paint_object(self, colour: str, shape: str, label: int, centre: tuple[float, float], radius: float) -> None:
        """Put an object on top of what is there; what lies beyond the image's edge is lost.

        Args:
            colour: a key of ``OBJECT_COLOURS``.
            shape: a key of ``SHAPES``.
            label: written inside the shape.
            centre: (x, y) in pixels.
            radius: of the circle around the shape, in pixels.
        """
        reach = radius + 1
        rows = slice(max(0, int(centre[1] - reach)), max(0, math.ceil(centre[1] + reach)))
        columns = slice(max(0, int(centre[0] - reach)), max(0, math.ceil(centre[0] + reach)))
        x, y = (self.x[:, columns] - centre[0]) / radius, (self.y[rows] - centre[1]) / radius
        outside = radius * SHAPES[shape](*self._rotated(x, y, self.level.object_tilt))
        behind = self.image[rows, columns]
        (tone,) = self._tones(OBJECT_COLOURS[colour])
        if self.level.fading:
            tone += self.rng.uniform(0, self.level.fading) * (behind.mean((0, 1)) - tone)
        behind += _ramp(outside)[..., None] * (tone - behind)
        self.label[rows, columns][outside <= 0] = label

    def _scribble(self) -> None:
        """Thin lines in random colours over everything: clutter that the label does not know."""
        height, width = self.label.shape
        for _ in range(self.rng.integers(self.level.clutter + 1)):
            x, y, angle, length = self.rng.uniform(0, 1, 4) * (width, height, math.pi, max(height, width) / 3)
            along = (self.x - x) * math.cos(angle) + (self.y - y) * math.sin(angle)
            across = (self.y - y) * math.cos(angle) - (self.x - x) * math.sin(angle)
            coverage = _ramp(np.maximum(np.abs(along) - length / 2, np.abs(across) - 0.7)).astype(np.float32)
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
