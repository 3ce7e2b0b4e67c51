"""One colour per class name, for label maps and overlays."""

import hashlib
from collections.abc import Iterable, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from err_seg.text.prompts import Color, Vocabulary, name_key

# 24 colours, saturated and neither black nor white, so that they read on photographs, spread as far as possible in
# OKLab (any two at least 0.13 apart) and, so that colour-blind readers can use them, also as seen with protanopia and
# deuteranopia (0.075 apart).
BASE_COLORS: NDArray[np.uint8] = np.frombuffer(
    bytes.fromhex(
        "00a596 4bd2c3 78ffff 3c78c3 69a5ff 2d4b87 0000ff 965aff 6900c3 c387d2 f0b4ff 965a96"
        "e10fd2 871e5a ff5a96 d21e4b ffa596 783c00 b47800 f0f00f 87b43c 00e100 69ff96 00784b"
    ),
    dtype=np.uint8,
).reshape(24, 3)

# Chosen so that a dozen frequent classes pick different colours, and natural ones: sky light blue, grass and tree
# green, water and sea blue, earth and sand brown, person skin.
_SALT = (38114584).to_bytes(8, "big")

_CANDIDATES = 64
_KEPT_APART = 1000
"""How many colours are kept apart from each other, at a cost that grows with the square of their number."""
_NEAR = 0.06
"""A base colour that is nearer (in OKLab) to one that a vocabulary gives is not used beside it."""

_FAR = 0.25  # which only some of the base colours can be from each other


def class_colors(names: Sequence[str]) -> NDArray[np.uint8]:
    """Choose a colour for every class.

    A colour belongs to a name, so that "sky" looks alike in every image and vocabulary (case and surrounding
    spaces do not matter, equal names share a colour). The rule:

    1. A hash of the name picks one of 24 well separated base colours. Where several names of the list pick the same
       one, the first keeps it.
    2. The others, in order, take the next free base colour after their own. Up to 24 names thus have base colours,
       all different.
    3. Once the base colours are used up, a name takes the one of its own 64 hashed colours that is farthest (in
       OKLab) from all colours given so far. From the 1,000th colour on none is far from all others, and a name takes
       the first of its own.

    Names to which a :class:`~err_seg.text.prompts.Vocabulary` gives colours have these.

    Args:
        names: N class names.

    Returns:
        (N, 3) uint8 sRGB, not to be written to: the latest results are remembered, since thousands of names take a
        while and images follow each other.
    """
    own = tuple(names.colors.items()) if isinstance(names, Vocabulary) else ()
    return _class_colors(tuple(map(name_key, names)), own)


def spread_colors(names: Sequence[str], shown: Sequence[str]) -> Vocabulary:
    """Give names that are shown together base colours far apart: each its own, or the most similar one that is far.

    Args:
        names: all class names; colours that a :class:`~err_seg.text.prompts.Vocabulary` gives stay.
        shown: some of these, the most important first.
    """
    colors, base = dict(Vocabulary(names).colors), oklab(BASE_COLORS)
    for key in [key for key in dict.fromkeys(map(name_key, shown)) if key not in colors][: len(base)]:
        taken = oklab(np.array([*colors.values()], dtype=np.uint8).reshape(-1, 3))
        nearest = np.linalg.norm(base[:, None] - taken, axis=2).min(axis=1, initial=np.inf)
        unlike = np.linalg.norm(base - base[_base_slot(key)], axis=1)
        red, green, blue = BASE_COLORS[np.where(nearest >= min(_FAR, nearest.max()), unlike, np.inf).argmin()].tolist()
        colors[key] = red, green, blue
    return Vocabulary(names, colors)


@lru_cache(maxsize=8)
def _class_colors(keys: tuple[str, ...], own: tuple[tuple[str, Color], ...]) -> NDArray[np.uint8]:
    colors = {key: np.array(color, dtype=np.uint8) for key, color in own}
    free = set(range(len(BASE_COLORS)))
    for color in colors.values():
        free -= set(np.flatnonzero(np.linalg.norm(oklab(BASE_COLORS) - oklab(color), axis=1) < _NEAR).tolist())
    others = [key for key in dict.fromkeys(keys) if key not in colors]
    for key in others:
        slot = _base_slot(key)
        if slot in free:
            free.remove(slot)
            colors[key] = BASE_COLORS[slot]
    for key in [key for key in others if key not in colors][: len(free)]:
        own_slot = _base_slot(key)
        slot = min(free, key=lambda slot: (slot - own_slot) % len(BASE_COLORS))
        free.remove(slot)
        colors[key] = BASE_COLORS[slot]
    _add_hashed_colors(colors, [key for key in others if key not in colors])
    chosen = np.array([colors[key] for key in keys], dtype=np.uint8).reshape(-1, 3)
    chosen.flags.writeable = False
    return chosen


def hex_color(color: Iterable[int]) -> str:
    """Write an sRGB colour as in HTML, for example "#00a596"."""
    return f"#{bytes(color).hex()}"


def oklab(rgb: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Convert (..., 3) uint8 sRGB to OKLab, where Euclidean distance follows perceived difference (white: L = 1)."""
    value = np.asarray(rgb) / 255
    linear = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    cones = linear @ np.array(
        [
            [0.4122214708, 0.2119034982, 0.0883024619],
            [0.5363325363, 0.6806995451, 0.2817188376],
            [0.0514459929, 0.1073969566, 0.6299787005],
        ]
    )
    return np.cbrt(cones) @ np.array(
        [
            [0.2104542553, 1.9779984951, 0.0259040371],
            [0.7936177850, -2.4285922050, 0.7827717662],
            [-0.0040720468, 0.4505937099, -0.8086757660],
        ]
    )


def _base_slot(key: str) -> int:
    digest = hashlib.blake2s(key.encode(), salt=_SALT).digest()
    return int.from_bytes(digest[:8], "big") % len(BASE_COLORS)


def _add_hashed_colors(colors: dict[str, NDArray[np.uint8]], keys: list[str]) -> None:
    """Give each key the one of its hashed candidate colours that is farthest from the first colours, in place."""
    taken = oklab(np.array([*colors.values()]).reshape(-1, 3))
    for key in keys:
        digest = hashlib.shake_128(key.encode()).digest(3 * _CANDIDATES)
        candidates = np.frombuffer(digest, dtype=np.uint8).reshape(-1, 3)
        lab = oklab(candidates)
        readable = (lab[:, 0] > 0.4) & (lab[:, 0] < 0.95)
        if len(taken) >= _KEPT_APART:
            colors[key] = candidates[int(readable.argmax())]
            continue
        nearest = np.linalg.norm(lab[:, None] - taken, axis=2).min(axis=1)
        best = int(np.where(readable, nearest, -1).argmax())
        colors[key] = candidates[best]
        taken = np.append(taken, lab[best : best + 1], axis=0)
