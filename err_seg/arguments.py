"""Checks of callers' arguments, before any work begins."""

import os
from numbers import Integral
from typing import Any


class ArgumentError(ValueError):
    """An argument that cannot be used; the message names it and says what was expected and what was found."""


def check_text(name: str, value: Any) -> str:
    """Return a text or path as text.

    Raises:
        ArgumentError: it is something else, or blank.
    """
    text = os.fspath(value) if isinstance(value, os.PathLike) else value
    if not isinstance(text, str) or not text.strip():
        raise ArgumentError(f"{name} must be a text that is not blank, not {value!r}")
    return text


def check_flag(name: str, value: Any) -> bool:
    """Return ``True`` or ``False``.

    Raises:
        ArgumentError: it is neither.
    """
    if not isinstance(value, bool):
        raise ArgumentError(f"{name} must be True or False, not {value!r}")
    return value


def check_count(name: str, value: Any) -> int:
    """Return a whole number of at least 1.

    Raises:
        ArgumentError: it is none.
    """
    if not is_positive(value):
        raise ArgumentError(f"{name} must be a whole number of at least 1, not {value!r}")
    return int(value)


def check_size(size: Any) -> tuple[int, int]:
    """Return a size (H, W).

    Raises:
        ArgumentError: it is not two whole numbers of at least 1.
    """
    if not isinstance(size, (tuple, list)) or len(size) != 2 or not all(is_positive(side) for side in size):
        raise ArgumentError(f"size must be (height, width), two whole numbers of at least 1, not {size!r}")
    return int(size[0]), int(size[1])


def is_positive(value: Any) -> bool:
    """Whether this is a whole number of at least 1 (and of 63 bits, as sizes are)."""
    return isinstance(value, Integral) and not isinstance(value, bool) and 1 <= int(value) < 2**63
