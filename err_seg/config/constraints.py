"""Ranges of configuration values: what a key takes, in words and as a test."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from err_seg.config.constants import COMPILE_MODES
from err_seg.utils.validation import is_finite


class Range(NamedTuple):
    """What values are allowed, of the default's type: ``expected`` completes "KEY must be ..."."""

    expected: str
    accepts: Callable[[Any], bool]


def at_least(least: float) -> Range:
    """Return the range of finite numbers from ``least`` on."""
    return Range(f"at least {least}", lambda value: is_finite(value) and value >= least)


def multiple_of(step: int) -> Range:
    """Return the range of the positive multiples of a number."""
    return Range(f"a positive multiple of {step}", lambda value: value > 0 and value % step == 0)


def one_of(*choices: str) -> Range:
    """Return the range of some texts."""
    return Range(f"one of {', '.join(map(repr, choices))}", lambda value: value in choices)


def any_of(*choices: str) -> Range:
    """Return the range of lists of some texts; the empty list is one of them."""
    return Range(f"a list of any of {', '.join(map(repr, choices))}", lambda value: set(value) <= set(choices))


def numbers(each: Range, count: int | None = None, *, empty: bool = False) -> Range:
    """Return the range of lists of ``count`` numbers, or of at least one (``empty``: or none), each in a range."""
    many = "a list of numbers" if count is None else f"a list of {count} numbers"

    def accepts(values: Sequence[Any]) -> bool:
        return len(values) == (count or max(not empty, len(values))) and all(
            is_finite(v) and each.accepts(v) for v in values
        )

    return Range(f"{many}, each {each.expected}", accepts)


def _are_names(values: Sequence[Any]) -> bool:
    return all(isinstance(name, str) and name for name in values)


def _is_compiler(value: str) -> bool:
    if value:
        from torch.compiler import list_backends  # slow to import

        return value in list_backends(exclude_tags=())
    return True


def _is_folder(value: str) -> bool:
    path = Path(value)
    nearest = next((place for place in (path, *path.absolute().parents) if place.exists()), None)
    return bool(value) and (nearest is None or nearest.is_dir())


ANYTHING = Range("of the type of the default", lambda value: True)
POSITIVE = Range("positive", lambda value: is_finite(value) and value > 0)
SHARE = Range("in 0..1", lambda value: 0 <= value <= 1)
PROBABILITY = Range("at least 0 and below 1", lambda value: 0 <= value < 1)
SOME_TEXT = Range("a text that is not empty", bool)
PROMPTS = Range(
    "a list of texts, each with one {} for the name",
    lambda texts: bool(texts) and all(isinstance(text, str) and text.count("{}") == 1 for text in texts),
)
COMPILER = Range('a backend of torch.compile (torch.compiler.list_backends() lists them), or ""', _is_compiler)
MODE_OR_COMPILER = Range(
    f'one of {", ".join(map(repr, COMPILE_MODES))}, a backend of torch.compile, or ""',
    lambda value: value in COMPILE_MODES or _is_compiler(value),
)
NAMES = Range("a list of names", _are_names)
ONE_DATASET = Range("a list of one data set", lambda value: len(value) == 1 and _are_names(value))
SECTIONS = Range("sections of settings, by name", lambda value: all(isinstance(v, dict) for v in value.values()))
ENTRIES = Range("a list of data sets, each with its settings", lambda value: all(isinstance(v, dict) for v in value))
VIEW_SCALES = Range("a list of positive numbers that holds 1", lambda v: numbers(POSITIVE).accepts(v) and 1 in v)
FOLDER = Range("a folder, or where one can be made", _is_folder)
