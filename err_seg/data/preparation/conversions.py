"""The seven data sets: where the archives come from, what they hold, and how they are converted.

The names, classes and numbers of the converted files are in the catalog.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from err_seg.data.catalog import get_dataset
from err_seg.data.preparation import sources
from err_seg.data.preparation.labels import convert_label, counted_from_one, ids_in_table
from err_seg.data.preparation.sources import Listing, Split


@dataclass(frozen=True)
class Conversion:
    """How one data set goes from its archive to converted label maps.

    Attributes:
        name: its name on the command line.
        pages: web pages that the archives come from.
        splits: its parts.
        list_pairs: (root, split) to the raw pairs in the archive; raises MissingFiles.
        convert: raw label map to class indices.
        shorter_side: images and label maps are shrunk so that the shorter side is at most this, in pixels.
        leave_out_ignored: whether a label map with no class at all is left out.
    """

    name: str
    pages: tuple[str, ...]
    splits: tuple[Split, ...]
    list_pairs: Callable[[Path, Split], Listing]
    convert: Callable
    shorter_side: int | None = None
    leave_out_ignored: bool = False


_VOC = "http://host.robots.ox.ac.uk/pascal/VOC"
_CONTEXT_PAGES = ("label maps: https://cs.stanford.edu/~roozbeh/pascal-context", f"images of VOC 2010: {_VOC}")
_COCO_STUFF = ("coco-stuff/images", "coco-stuff/annotations")
_ADE150 = ("ADEChallengeData2016/images/validation", "ADEChallengeData2016/annotations/validation")
_ADE_FULL = ("ADE20K_2021_17_01/images/ADE/validation",) * 2  # label maps lie beside the images
_CONTEXT = ("VOCdevkit/VOC2010/JPEGImages", "VOCdevkit/VOC2010/trainval")
_VOC_2012 = ("VOCdevkit/VOC2012/JPEGImages", "VOCdevkit/VOC2012/SegmentationClass")

_COCO_STUFF_CLASSES = {raw_id - 1: index for raw_id, index in ids_in_table("coco_stuff171.json").items()}
_VOC_20 = counted_from_one(20)  # beside 0, the background, and 255, void

_ALL = (
    Conversion(
        name="coco-stuff",
        pages=(
            "label maps (stuffthingmaps_trainval2017.zip): https://github.com/nightrome/cocostuff",
            "images: https://cocodataset.org",
        ),
        splits=tuple(
            Split(name, get_dataset(dataset), *(f"{folder}/{name}" for folder in _COCO_STUFF))
            for name, dataset in (("train2017", "coco_stuff_train"), ("val2017", "coco_stuff_val"))
        ),
        list_pairs=sources.list_folders,
        # the data set's ids minus one, of which 11 have no class; 255 where unlabelled
        convert=partial(convert_label, _COCO_STUFF_CLASSES, [*range(182), 255], 255),
    ),
    Conversion(
        name="ade150",
        pages=("ADEChallengeData2016: http://sceneparsing.csail.mit.edu",),
        splits=(Split("validation", get_dataset("ade20k_150_val"), *_ADE150),),
        list_pairs=sources.list_folders,
        convert=partial(convert_label, counted_from_one(150), [0], 255),
    ),
    Conversion(
        name="ade847",
        pages=("ADE20K_2021_17_01: https://groups.csail.mit.edu/vision/datasets/ADE20K",),
        splits=(Split("validation", get_dataset("ade20k_847_val"), *_ADE_FULL),),
        list_pairs=sources.list_ade20k_full,
        convert=partial(convert_label, ids_in_table("ade847.json"), range(26 * 256), 65535),
        shorter_side=512,
    ),
    Conversion(
        name="pc59",
        pages=_CONTEXT_PAGES,
        splits=(Split("val", get_dataset("pascal_context_59_val"), *_CONTEXT),),
        list_pairs=sources.list_context_59,
        convert=partial(convert_label, ids_in_table("pc59.json"), range(460), 255),  # the 459 classes, 0 for none
    ),
    Conversion(
        name="pc459",
        pages=_CONTEXT_PAGES,
        splits=(Split("val", get_dataset("pascal_context_459_val"), *_CONTEXT),),
        list_pairs=sources.list_context_459,
        convert=partial(convert_label, counted_from_one(459), [0], 65535),
    ),
    Conversion(
        name="voc20",
        pages=(f"VOC 2012: {_VOC}",),
        splits=(Split("val", get_dataset("pascal_voc_20_val"), *_VOC_2012),),
        list_pairs=sources.list_voc,
        convert=partial(convert_label, _VOC_20, [0, 255], 255),
        leave_out_ignored=True,
    ),
    Conversion(
        name="voc20b",
        pages=(f"VOC 2012: {_VOC}",),
        splits=(Split("val", get_dataset("pascal_voc_20b_val"), *_VOC_2012),),
        list_pairs=sources.list_voc,
        convert=partial(convert_label, {**_VOC_20, 0: 20}, [255], 255),
        leave_out_ignored=True,
    ),
)

CONVERSIONS = {conversion.name: conversion for conversion in _ALL}
"""Every data set by its name on the command line."""
