"""Colours, shapes and textures of the miniature world.

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


# Of the long vocabularies: one tone a colour, for grounds and for patterns, of objects and of walls.
COLOURS: dict[str, tuple[int, int, int]] = {
    **OBJECT_COLOURS,
    "white": (246, 246, 246),
    "pink": (255, 150, 195),
    "gray": (132, 132, 136),
    "brown": (112, 64, 30),
    "navy": (10, 20, 92),
    "teal": (0, 112, 112),
    "lime": (168, 244, 40),
    "magenta": (232, 16, 150),
}


def _wave(position: Array, period: float) -> Array:
    """Distance to the nearest multiple of ``period``."""
    return np.abs(np.mod(position + period / 2, period) - period / 2)


def ramp(distance: Array) -> Array:
    """Coverage in [0, 1] of a pixel whose centre lies ``distance`` pixels outside an edge."""
    return np.clip(0.5 - distance, 0, 1)


def _star(x: Array, y: Array, inner: float = 0.36) -> Array:
    """Five points, one of them up; ``inner`` is the radius of the notches."""
    tenth = math.pi / 5
    folded = _wave(np.arctan2(x, -y), 2 * tenth)  # angle from the nearest tip: one half tip is all there is to draw
    notch = inner * math.cos(tenth), inner * math.sin(tenth)
    edge = math.hypot(1 - notch[0], notch[1])  # runs from the tip (1, 0) to the notch
    return np.hypot(x, y) * (notch[1] * np.cos(folded) + (1 - notch[0]) * np.sin(folded)) / edge - notch[1] / edge


SHAPES: dict[str, Callable[[Array, Array], Array]] = {
    "circle": lambda x, y: np.hypot(x, y) - 0.94,
    "square": lambda x, y: np.maximum(np.abs(x), np.abs(y)) - 0.8,
    # equilateral, tip up, its corners on the unit circle
    "triangle": lambda x, y: np.maximum(y, 0.8660254 * np.abs(x) - 0.5 * y) - 0.5,
    "star": _star,
    "cross": lambda x, y: np.maximum(np.maximum(np.abs(x), np.abs(y)) - 0.96, np.minimum(np.abs(x), np.abs(y)) - 0.33),
    "ring": lambda x, y: np.abs(np.hypot(x, y) - 0.73) - 0.24,
}


def _arrow(x: Array, y: Array) -> Array:
    """Tip up: a triangle on a shaft."""
    tip = np.maximum(y, (0.85 * np.abs(x) - 0.8 * (y + 0.95)) / math.hypot(0.85, 0.8))
    return np.minimum(tip, np.maximum(np.abs(x) - 0.26, np.abs(y - 0.4) - 0.5))


MORE_SHAPES: dict[str, Callable[[Array, Array], Array]] = {
    "diamond": lambda x, y: (1.5 * np.abs(x) + np.abs(y) - 0.96) / math.hypot(1.5, 1),
    "crescent": lambda x, y: np.maximum(np.hypot(x, y) - 0.94, 0.75 - np.hypot(x - 0.45, y)),
    "arrow": _arrow,
    "hourglass": lambda x, y: np.maximum(np.abs(y) - 0.85, (np.abs(x) - 0.85 * np.abs(y) - 0.06) / math.hypot(1, 0.85)),
    "bar": lambda x, y: np.maximum(np.abs(x) - 0.94, np.abs(y) - 0.34),
}
"""Further shapes of the long vocabularies."""


def _stripes(ratio: float) -> Callable[[Array, Array, float], Array]:
    """Upright stripes; the period over half their width is ``ratio``."""
    return lambda u, v, period: ramp(_wave(u, period) - period / ratio) + 0 * v  # the zero gives the pattern its height


def _dotted(u: Array, v: Array, period: float) -> Array:
    return ramp(np.hypot(_wave(u, period), _wave(v, period)) - 0.32 * period)


def _checkered(u: Array, v: Array, period: float) -> Array:
    a, b = ramp(_wave(u, period) - period / 4), ramp(_wave(v, period) - period / 4)
    return a + b - 2 * a * b


def _brick(u: Array, v: Array, period: float) -> Array:
    """Running bond: every other course is shifted by half a brick; the pattern is the mortar."""
    height, length, mortar = 0.6 * period, 1.3 * period, 0.085 * period
    course = np.mod(np.floor(v / height), 2)
    joints = np.minimum(_wave(v, height), _wave(u + course * (length / 2), length))
    return ramp(joints - mortar)


TEXTURES: dict[str, Callable[[Array, Array, float], Array]] = {
    "striped": _stripes(4),  # half of each tone
    "checkered": _checkered,
    "brick": _brick,
    "dotted": _dotted,
}


PATTERNS: dict[str, Callable[[Array, Array, float], Array]] = {
    "stripes": _stripes(6),
    "bands": lambda u, v, period: _stripes(6)(v, u, period),
    "dots": _dotted,
    "grid": lambda u, v, period: ramp(np.minimum(_wave(u, period), _wave(v, period)) - period / 10),
}
"""Patterns of the long vocabularies, one colour on another; they cover about a third, so that the two differ."""


class Look(NamedTuple):
    """What a class looks like.

    Attributes:
        shape: the name of a shape, or "wall".
        ground: the colour, RGB in 0..255.
        pattern: the name of a texture or pattern on it; "" is none.
        tone: the pattern's colour.
    """

    shape: str
    ground: tuple[int, int, int]
    pattern: str = ""
    tone: tuple[int, int, int] = (0, 0, 0)
