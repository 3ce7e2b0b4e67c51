"""From the values that the files of label maps hold to labels, by one look-up; and how an entry declares them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from err_seg.text.vocabularies import find_class
from err_seg.utils.messages import listed

KEYS = ("label_map", "palette", "reduce_zero_label")
IGNORE, OTHERS = "ignore", "others"
# numbers, the lowest and the highest; a table of 2^24 places takes memory only where it is written to
_ID = 1, -(2**24), 2**24 - 1, "an id, an integer of at most 24 bits"
_COLOR = 3, 0, 255, "a colour, [red, green, blue] in 0..255"


@dataclass(frozen=True)
class LabelRule:
    """What the values in label files mean.

    Attributes:
        labels: (value, label) of at least one value, values ascending; a colour is red · 2^16 + green · 2^8 + blue.
        others: the label of all further values; ``None``: they are not defined.
        is_color: whether values are colours.
    """

    labels: tuple[tuple[int, int], ...]
    others: int | None = None
    is_color: bool = False

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """Look up the labels, int64, of integers.

        Raises:
            ValueError: some are not defined; it says how many, and which.
        """
        known, labels = np.array(self.labels).T
        first = known[0] - 1  # a place before all values and one behind them, for those beyond
        places = np.zeros(known[-1] - first + 2, dtype=np.int32)
        places[known - first] = np.arange(1, len(known) + 1)
        found = places.take(values.astype(np.int64) - first, mode="clip")
        if self.others is None and (strange := found == 0).any():
            given = np.unique(values[strange]).tolist()
            text = listed([tuple(value.to_bytes(3, "big")) for value in given] if self.is_color else given, 5)
            raise ValueError(f"{strange.sum()} pixels hold values that the data set does not define ({text})")
        return np.array([self.others or 0, *labels])[found]


def declared_rule(entry: Mapping[str, Any], classes: Sequence[str], ignored: Sequence[int]) -> LabelRule | None:
    """Return what ``label_map``, ``palette`` or ``reduce_zero_label`` of an entry say; ``None``: values are the labels.

    Args:
        classes: the names that labels stand for.
        ignored: values that are ignored; the first is the ignore label.

    Raises:
        ValueError: the keys contradict each other, or one is wrong.
    """
    given = [key for key in KEYS if entry.get(key) not in (None, False)]
    if len(given) > 1:
        raise ValueError(f"{' and '.join(given)} contradict each other; keep one of them")
    if not given and len(ignored) == 1:
        return None
    key = given[0] if given else "ignore_label"
    table, is_color = entry.get(key), key == "palette"
    if not given or (key == "reduce_zero_label" and table is True):
        table = {index + len(given): index for index in range(len(classes))} | ({0: IGNORE} if given else {})
    elif is_color and isinstance(table, list) and len(table) == len(classes):
        table = dict(zip(classes, table, strict=True))
    if not isinstance(table, Mapping):
        expected = f"a mapping (a palette may be a list of {len(classes)} colours, reduce_zero_label is true or false)"
        raise ValueError(f"{key} is {table!r}, expected {expected}")

    def label_of(meaning: Any) -> int:
        is_index = type(meaning) is int and 0 <= meaning < len(classes)
        return ignored[0] if meaning == IGNORE else meaning if is_index else find_class(classes, meaning)

    pairs = [(value, meaning) for value, meaning in table.items() if value != OTHERS]
    if is_color or not all(type(value) is int for value, _ in pairs):  # then names are the keys, of one or several
        pairs = [(v, name) for name, vs in pairs for v in np.array(vs, dtype=object, ndmin=1 + is_color).tolist()]
    size, low, high, expected = _COLOR if is_color else _ID
    labels: dict[int, int] = {}
    for written, meaning in [*pairs, *((value, IGNORE) for value in ignored if len(ignored) > 1)]:
        numbers = written if is_color and isinstance(written, list) else [written]
        if len(numbers) != size or any(type(n) is not int or not low <= n <= high for n in numbers):
            raise ValueError(f"{key} has {written!r}, expected {expected}; its keys are all names, or all ids")
        value, label = int.from_bytes(bytes(numbers), "big") if is_color else written, label_of(meaning)
        if labels.setdefault(value, label) != label:
            raise ValueError(f"{key}: {written!r} has more than one meaning (of classes and ignored values)")
    others = label_of(table[OTHERS]) if OTHERS in table else None
    lacking = listed(repr(name) for index, name in enumerate(classes) if index not in {*labels.values(), others})
    if lacking or not labels:
        raise ValueError(f"{key} has no value for {lacking or 'any class'}; add it, or shorten the vocabulary")
    if not is_color:
        labels.setdefault(ignored[0], ignored[0])
    return LabelRule(tuple(sorted(labels.items())), others, is_color)
