"""Checks of callers' arguments, before any work begins.

Each check returns the argument, in its plain type, or raises :class:`ArgumentError`.
"""

import math
import os
from numbers import Integral, Real
from typing import Any

LONGEST_NAME = 255  # of a file or folder


class ArgumentError(ValueError):
    """An argument that cannot be used; the message names it and says what was expected and what was found."""


def check_text(name: str, value: Any) -> str:
    """Check a name or path: a text that is neither blank nor too long for a path."""
    text = os.fspath(value) if isinstance(value, os.PathLike) else value
    if not isinstance(text, str) or not text.strip():
        raise ArgumentError(f"{name} must be a text that is not blank, not {value!r}")
    if max(map(len, text.split("/"))) > LONGEST_NAME:
        raise ArgumentError(f"{name} must be a name or path, not a text as long as {text[:60]!r}...")
    return text


def check_flag(name: str, value: Any) -> bool:
    """Check a truth value."""
    if not isinstance(value, bool):
        raise ArgumentError(f"{name} must be True or False, not {value!r}")
    return value


def check_count(name: str, value: Any, what: str = "a whole number of at least 1") -> int:
    """Check a whole number of at least 1; ``what`` is said to be expected."""
    if not is_positive(value):
        raise ArgumentError(f"{name} must be {what}, not {value!r}")
    return int(value)


def check_number(name: str, value: Any) -> float:
    """Check a finite number of at least 0."""
    if not is_finite(value) or value < 0:
        raise ArgumentError(f"{name} must be a finite number of at least 0, not {value!r}")
    return float(value)


def check_size(size: Any) -> tuple[int, int]:
    """Check a size (H, W): two whole numbers of at least 1."""
    if not isinstance(size, (tuple, list)) or len(size) != 2 or not all(is_positive(side) for side in size):
        raise ArgumentError(f"size must be (height, width), two whole numbers of at least 1, not {size!r}")
    return int(size[0]), int(size[1])


def is_positive(value: Any) -> bool:
    """Whether this is a whole number of at least 1 (and of 63 bits, as sizes are)."""
    return isinstance(value, Integral) and not isinstance(value, bool) and 1 <= int(value) < 2**63


def is_finite(value: Any) -> bool:
    """Whether this is a number that is finite in double precision."""
    try:
        return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:  # of a whole number
        return False
