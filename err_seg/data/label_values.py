"""From the values that the files of label maps hold to labels, by one look-up; and how an entry declares them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from err_seg.text.prompts import name_key
from err_seg.utils.errors import DatasetError
from err_seg.utils.messages import did_you_mean, listed

KEYS = ("label_map", "palette", "reduce_zero_label")
"""An entry's keys that say what values mean."""
IGNORE, OTHERS = "ignore", "others"
UNDEFINED = int(np.iinfo(np.int64).min)
_MOST = 2**24  # values are smaller: a table of so many places takes memory only where it is written to


@dataclass(frozen=True)
class LabelRule:
    """What the values in label files mean.

    Attributes:
        labels: (value, label) of each value that is defined, values ascending; a colour's value is
            red · 2^16 + green · 2^8 + blue.
        others: the label of all further values; ``None``: they are not defined.
        is_color: whether values are colours.
    """

    labels: tuple[tuple[int, int], ...]
    others: int | None = None
    is_color: bool = False

    @classmethod
    def of(cls, labels: Mapping[int, int], **options: Any) -> "LabelRule":
        """Make a rule of the values and their labels."""
        return cls(tuple(sorted(labels.items())), **options)

    @property
    def targets(self) -> set[int]:
        """The labels that occur."""
        return {*(label for _, label in self.labels), *(() if self.others is None else (self.others,))}

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """Look up an array of integers: its labels, int64, ``UNDEFINED`` where a value is not defined."""
        known, labels = np.array(self.labels).T
        first = known[0] - 1  # a place before all values and one behind them, for those beyond
        places = np.zeros(known[-1] - first + 2, dtype=np.int32)
        places[known - first] = np.arange(1, len(known) + 1)
        found = places.take(values.astype(np.int64) - first, mode="clip")
        return np.array([UNDEFINED if self.others is None else self.others, *labels])[found]

    def then(self, renumbered: Mapping[int, int]) -> "LabelRule":
        """Return the rule that gives each label its new number."""
        labels = tuple((value, renumbered[label]) for value, label in self.labels)
        return replace(self, labels=labels, others=None if self.others is None else renumbered[self.others])

    def text(self, value: int) -> str:
        """Write a value as messages do: 7, or (128, 64, 128)."""
        return str((value >> 16, value >> 8 & 255, value & 255)) if self.is_color else str(value)


def class_index(name: object, classes: Sequence[str], where: str) -> int:
    """Find a class by its whole name, else by its first synonym; case does not count.

    Raises:
        DatasetError: no class, or more than one, has the name; it begins with ``where``.
    """
    for known in (classes, [text.split(",")[0] for text in classes]):
        found = [i for i, text in enumerate(known) if isinstance(name, str) and name_key(text) == name_key(name)]
        if len(found) == 1:
            return found[0]
    hint = did_you_mean(name, classes, f"the classes are {listed(classes)}")
    raise DatasetError(f"{where}: {name!r} is not the name of one class; {hint}")


def declared_rule(
    entry: Mapping[str, Any], classes: Sequence[str], ignored: Sequence[int], where: str
) -> LabelRule | None:
    """Return what an entry says of its values; ``None`` where they are the labels.

    Args:
        entry: ``label_map``, ``palette`` or ``reduce_zero_label``, or none of them.
        classes: the names that labels stand for.
        ignored: values that are ignored; the first is the ignore label.
        where: what errors begin with.

    Raises:
        DatasetError: the keys contradict each other, or one is wrong.
    """
    given = [key for key in KEYS if entry.get(key) not in (None, False)]
    if len(given) > 1:
        raise DatasetError(f"{where}: {' and '.join(given)} contradict each other; keep one of them")
    labels, others, is_color = {index: index for index in range(len(classes))}, None, given == ["palette"]
    if given == ["reduce_zero_label"]:
        if entry["reduce_zero_label"] is not True:
            raise DatasetError(f"{where}: reduce_zero_label is {entry['reduce_zero_label']!r}, expected true or false")
        labels = {0: ignored[0], **{index + 1: index for index in labels}}
    elif given:
        labels, others = _declared_labels(entry[given[0]], classes, ignored[0], is_color, f"{where}: {given[0]}")
    elif len(ignored) == 1:
        return None
    if is_color and len(ignored) > 1:
        raise DatasetError(f"{where}: ignore_label lists values, but palette has colours: list those there, as ignore")
    for value in ignored if len(ignored) > 1 else ():
        if labels.get(value, ignored[0]) != ignored[0]:
            raise DatasetError(f"{where}: ignore_label lists {value}, which is the class {classes[labels[value]]!r}")
    unlisted = {} if is_color else dict.fromkeys(ignored, ignored[0])
    return LabelRule.of({**unlisted, **labels}, others=others, is_color=is_color)


def _declared_labels(
    table: Any, classes: Sequence[str], ignore_label: int, is_color: bool, where: str
) -> tuple[dict[int, int], int | None]:
    """Return the label of each value in ``label_map`` or ``palette``, and that of the others."""

    def label_of(meaning: object) -> int:
        if meaning == IGNORE and IGNORE not in classes:
            return ignore_label
        return meaning if meaning in range(len(classes)) else class_index(meaning, classes, where)  # type: ignore

    if is_color and isinstance(table, (list, tuple)):
        if len(table) != len(classes):
            raise DatasetError(f"{where} lists {len(table)} colours, expected one for each of {len(classes)} classes")
        table = dict(zip(classes, table, strict=True))
    if not isinstance(table, Mapping):
        raise DatasetError(f"{where} is {table!r}, expected a mapping")
    entries = {key: value for key, value in table.items() if key != OTHERS or not isinstance(value, str)}
    others = label_of(table[OTHERS]) if len(entries) < len(table) else None
    pairs = list(entries.items())
    if is_color or not all(type(key) is int for key in entries):  # names are the keys, each of one value or several
        pairs = [(value, name) for name, values in pairs for value in _several(values, is_color)]
    labels: dict[int, int] = {}
    for given, meaning in pairs:
        value, label = _value(given, is_color, where), label_of(meaning)
        if value in labels:
            raise DatasetError(f"{where} gives {given!r} more than one meaning; list it once")
        labels[value] = label
    lacking = [name for index, name in enumerate(classes) if index not in {*labels.values(), others}]
    if lacking or not labels:
        found = listed(map(repr, lacking)) or "any class"
        raise DatasetError(f"{where} has no value for {found}; add it, or take the class out of the vocabulary")
    return labels, others


def _several(values: Any, is_color: bool) -> Sequence[Any]:
    is_one = not isinstance(values, (list, tuple)) or (is_color and all(type(value) is int for value in values))
    return [values] if is_one else values


def _value(given: Any, is_color: bool, where: str) -> int:
    numbers = given if is_color and isinstance(given, (list, tuple)) else [given]
    size, low, high = (3, 0, 255) if is_color else (1, 1 - _MOST, _MOST - 1)
    if len(numbers) != size or any(type(number) is not int or not low <= number <= high for number in numbers):
        expected = "a colour, [red, green, blue] in 0..255" if is_color else "an id, an integer of at most 24 bits"
        raise DatasetError(f"{where} has {given!r}, expected {expected}; keys are all names, or all ids")
    return int.from_bytes(bytes(numbers), "big") if is_color else numbers[0]
