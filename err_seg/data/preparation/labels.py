"""From the label values of a data set's archive to class indices: one pure function per benchmark.

Each takes a raw label map and returns a new one with values in [0, classes) or the ignore label. A value that the data
set does not define raises ValueError: the file is damaged, or not the data set's.
"""

import json
from collections.abc import Mapping
from functools import cache
from importlib import resources

import numpy as np

IGNORE_8_BIT = 255
IGNORE_16_BIT = 65535
"""Ignore labels of the converted files, uint8 (up to 255 classes) and uint16."""

_UNDEFINED = -1


def convert_coco_stuff(label: np.ndarray) -> np.ndarray:
    """COCO-Stuff's "thing and stuff" pixel maps to the 171 classes.

    Args:
        label: (H, W) uint8, the data set's id minus one (0..181), 255 where unlabelled.

    Returns:
        (H, W) uint8 in 0..170; 255 where unlabelled or where the id has no class (11 ids).
    """
    classes = {raw_id - 1: index for raw_id, index in _class_ids("coco_stuff171.json").items()}
    return _convert(label, dict.fromkeys([*range(182), 255], IGNORE_8_BIT) | classes, np.uint8)


def convert_ade150(label: np.ndarray) -> np.ndarray:
    """ADEChallengeData2016: (H, W) uint8, 0 for none and 1..150, to (H, W) uint8 in 0..149, 255 for none."""
    return _convert(label, {0: IGNORE_8_BIT} | _one_less(150), np.uint8)


def convert_ade847(colours: np.ndarray) -> np.ndarray:
    """The full ADE20K's colour-coded segmentations to its 847 frequent classes.

    Args:
        colours: (H, W, 3) uint8 RGB; the class id is (R // 10) · 256 + G, 0 for none; B tells instances apart.

    Returns:
        (H, W) uint16 in 0..846; 65535 for every other id.
    """
    if colours.ndim != 3 or colours.shape[2] != 3 or colours.dtype != np.uint8:
        raise ValueError(
            f"expected an 8-bit RGB segmentation of shape (H, W, 3), found shape {colours.shape}, {colours.dtype}"
        )
    ids = (colours[..., 0] // 10).astype(np.uint16) * 256 + colours[..., 1]
    return _convert(ids, dict.fromkeys(range(26 * 256), IGNORE_16_BIT) | _class_ids("ade847.json"), np.uint16)


def convert_voc20(label: np.ndarray) -> np.ndarray:
    """PASCAL VOC: (H, W) uint8, 0 background, 1..20, 255 void, to (H, W) uint8 in 0..19, 255 for both others."""
    return _convert(label, {0: IGNORE_8_BIT, 255: IGNORE_8_BIT} | _one_less(20), np.uint8)


def convert_voc20b(label: np.ndarray) -> np.ndarray:
    """PASCAL VOC: (H, W) uint8, 0 background, 1..20, 255 void, to (H, W) uint8: 0..19, 20 background, 255 void."""
    return _convert(label, {0: 20, 255: IGNORE_8_BIT} | _one_less(20), np.uint8)


def convert_pc459(label: np.ndarray) -> np.ndarray:
    """PASCAL-Context: (H, W) uint16, 0 for none and 1..459, to (H, W) uint16 in 0..458, 65535 for none."""
    return _convert(label, {0: IGNORE_16_BIT} | _one_less(459), np.uint16)


def convert_pc59(label: np.ndarray) -> np.ndarray:
    """PASCAL-Context's 59 frequent classes.

    Args:
        label: (H, W) uint16, ids of the 459 classes, 0 for none.

    Returns:
        (H, W) uint8 in 0..58; 255 for none and for the 400 other classes.
    """
    return _convert(label, dict.fromkeys(range(460), IGNORE_8_BIT) | _class_ids("pc59.json"), np.uint8)


def _one_less(classes: int) -> dict[int, int]:
    """Class ids that count from 1, to indices from 0."""
    return {value: value - 1 for value in range(1, classes + 1)}


@cache
def _class_ids(file_name: str) -> dict[int, int]:
    """From a data set's own class id to the index, as one of the package's tables lists them in order."""
    text = (resources.files("err_seg.data") / "tables" / file_name).read_text(encoding="utf-8")
    return {entry["raw_id"]: index for index, entry in enumerate(json.loads(text))}


def _convert(label: np.ndarray, rule: Mapping[int, int], dtype: type[np.unsignedinteger]) -> np.ndarray:
    """Convert a raw label map (H, W) by a rule from raw values to class indices."""
    bits = 8 if max(rule) < 256 else 16
    if label.ndim != 2 or label.dtype.kind != "u" or label.dtype.itemsize * 8 > bits:
        raise ValueError(
            f"expected class ids of shape (H, W), unsigned with {bits} bits, found shape {label.shape}, {label.dtype}"
        )
    table = np.full(2**bits, _UNDEFINED, dtype=np.int32)  # over every raw value, so that a map costs one look-up
    table[list(rule.keys())] = list(rule.values())
    converted = np.take(table, label)
    undefined = converted == _UNDEFINED
    if undefined.any():
        found = ", ".join(map(str, np.unique(label[undefined])[:5]))
        raise ValueError(f"holds label values that the data set does not define ({found}); is it the archive's file?")
    return converted.astype(dtype)
