"""From the label values of a data set's archive to class indices."""

import json
from collections.abc import Collection, Mapping
from importlib import resources

import numpy as np

from err_seg.data.label_values import LabelRule


def convert_label(
    classes: Mapping[int, int], ignored: Collection[int], ignore_label: int, label: np.ndarray
) -> np.ndarray:
    """Convert a raw label map.

    Args:
        classes: raw value to class index.
        ignored: all further raw values that the data set defines; what has a class counts as that.
        ignore_label: what the others become, as the catalog declares it.
        label: (H, W) uint8, or uint16 where raw values go beyond 255.

    Returns:
        (H, W), class indices and the ignore label, of the smallest unsigned type that holds the latter.

    Raises:
        ValueError: another shape or type, or a value that is not defined: the file is damaged, or not the data set's.
    """
    labels = {**dict.fromkeys(ignored, ignore_label), **classes}
    bits = 8 if max(labels) < 256 else 16
    if label.ndim != 2 or label.dtype.kind != "u" or label.dtype.itemsize * 8 > bits:
        raise ValueError(
            f"expected class ids of shape (H, W), unsigned with {bits} bits, found shape {label.shape}, {label.dtype}"
        )
    return LabelRule(tuple(sorted(labels.items())))(label).astype(np.min_scalar_type(ignore_label))


def counted_from_one(classes: int) -> dict[int, int]:
    """Class ids 1, 2, ... to indices from 0."""
    return {value: value - 1 for value in range(1, classes + 1)}


def ids_in_table(file_name: str) -> dict[int, int]:
    """From a data set's own class id to the index, as one of the package's tables lists them in order."""
    text = (resources.files("err_seg.data") / "tables" / file_name).read_text(encoding="utf-8")
    return {entry["raw_id"]: index for index, entry in enumerate(json.loads(text))}
