"""The rules from raw label values to class indices, on examples worked by hand."""

import numpy as np
import pytest
from PIL import Image

from err_seg.data import get_dataset
from err_seg.data.catalog import published
from err_seg.data.preparation.conversions import CONVERSIONS
from err_seg.data.preparation.sources import read_raw_label

COCO, ADE150, ADE847, PC59, PC459, VOC20, VOC20B = (conversion.convert for conversion in CONVERSIONS.values())


def convert(function, values, dtype):
    return function(np.array([values], dtype=dtype))[0].tolist()


def class_index(dataset, name):
    return get_dataset(dataset).evaluated_classes.index(name)


def test_coco_stuff_skips_ids_without_class():
    # value = id - 1: person 1, fire hydrant 11, (12 has no class), stop sign 13; the last id is 182, wood
    assert convert(COCO, [0, 10, 11, 12, 181, 255], np.uint8) == [0, 10, 255, 11, 170, 255]
    every_value = COCO(np.arange(182, dtype=np.uint8)[None])
    assert sorted(set(every_value[every_value != 255].tolist())) == list(range(171))
    assert (every_value == 255).sum() == 11


def test_ade150():
    assert convert(ADE150, [0, 1, 150], np.uint8) == [255, 0, 149]


def test_ade847_decodes_red_and_green_and_ignores_blue(tmp_path):
    # wall is id 2978 = 11 * 256 + 162, tree 2855 = 11 * 256 + 39; R // 10 rounds down; id 1 is none of the 847
    colours = np.array([[[110, 162, 7], [119, 162, 200], [115, 39, 0], [0, 0, 0], [0, 1, 1]]], dtype=np.uint8)
    tree = class_index("ade20k_847_val", "tree")
    Image.fromarray(colours).save(tmp_path / "a_seg.png")
    converted = ADE847(read_raw_label(tmp_path / "a_seg.png"))
    assert converted.dtype == np.uint16
    assert converted[0].tolist() == [0, 0, tree, 65535, 65535]


def test_voc_background_is_ignored_or_a_class():
    assert convert(VOC20, [0, 1, 20, 255], np.uint8) == [255, 0, 19, 255]
    assert convert(VOC20B, [0, 1, 20, 255], np.uint8) == [20, 0, 19, 255]


def test_pc459_keeps_16_bits():
    converted = PC459(np.array([[0, 1, 256, 431, 459]], dtype=np.uint16))
    assert converted.dtype == np.uint16
    assert converted[0].tolist() == [65535, 0, 255, 430, 458]


def test_pc59_takes_its_classes_of_the_459():
    wood = class_index("pascal_context_59_val", "wood")
    # aeroplane 2, bag 9, wood 458; accordion 1 is none of the 59
    assert convert(PC59, [0, 1, 2, 9, 458], np.uint16) == [255, 255, 0, 1, wood]
    every_value = PC59(np.arange(460, dtype=np.uint16)[None])
    assert sorted(set(every_value[every_value != 255].tolist())) == list(range(59))


@pytest.mark.parametrize(
    ("function", "value", "dtype"),
    [
        (COCO, 182, np.uint8),
        (ADE150, 151, np.uint8),
        (ADE150, 255, np.uint8),
        (VOC20, 21, np.uint8),
        (VOC20B, 254, np.uint8),
        (PC459, 460, np.uint16),
        (PC59, 65535, np.uint16),
    ],
)
def test_values_that_the_data_set_lacks_are_refused(function, value, dtype):
    with pytest.raises(ValueError, match=rf"does not define \({value}\)"):
        convert(function, [1, value], dtype)


def test_values_are_not_written_to_the_raw_label():
    raw = np.array([[0, 1]], dtype=np.uint8)
    VOC20(raw)
    assert raw.tolist() == [[0, 1]]


@pytest.mark.parametrize(
    ("function", "raw"),
    [
        (VOC20, np.zeros((2, 2, 3), np.uint8)),
        (VOC20, np.zeros((2, 2), np.uint16)),
        (PC459, np.zeros((2, 2), np.float64)),
        (ADE847, np.zeros((2, 2, 3), np.uint8)),
    ],
)
def test_wrong_shape_or_type_is_refused(function, raw):
    with pytest.raises(ValueError, match=r"found shape \(2, 2"):
        function(raw)


@pytest.mark.parametrize("conversion", CONVERSIONS.values(), ids=lambda conversion: conversion.name)
def test_every_rule_agrees_with_the_catalog(conversion):
    """Classes 0 .. n-1 and the ignore label are what comes out over all raw values that are defined."""
    for split in conversion.splits:
        defined = {"coco-stuff": [*range(182), 255], "ade150": range(151), "pc59": range(460), "pc459": range(460)}
        defined["ade847"] = range(26 * 256)
        values = list(defined.get(conversion.name, [*range(21), 255]))
        raw = np.array([values], dtype=np.uint16 if max(values) > 255 else np.uint8)
        found = set(conversion.convert(raw).ravel().tolist())
        assert found == {*range(split.spec.num_evaluated_classes), split.spec.ignore_label}


def test_catalog_names_the_command():
    assert {spec.preparation for spec in published()} - {None} == set(CONVERSIONS)
