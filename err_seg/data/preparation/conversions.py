"""The seven data sets: where the archives come from, what they hold, and how they are converted.

The names, classes and numbers of the converted files are in the catalog.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import numpy as np

from err_seg.data.catalog import get_dataset
from err_seg.data.label_values import LabelRule
from err_seg.data.preparation import sources
from err_seg.data.preparation.sources import Listing, Split


@dataclass(frozen=True)
class Conversion:
    """How one data set goes from its archive to converted label maps.

    Attributes:
        name: its name on the command line.
        pages: web pages that the archives come from.
        splits: its parts.
        list_pairs: (root, split) to the raw pairs in the archive; raises MissingFiles.
        classes: raw label value to class index, or to None where it is ignored; others are not defined.
        shorter_side: images and label maps are shrunk so that the shorter side is at most this, in pixels.
        leave_out_ignored: whether a label map with no class at all is left out.
    """

    name: str
    pages: tuple[str, ...]
    splits: tuple[Split, ...]
    list_pairs: Callable[[Path, Split], Listing]
    classes: Mapping[int, int | None]
    shorter_side: int | None = None
    leave_out_ignored: bool = False

    def convert(self, label: np.ndarray) -> np.ndarray:
        """Convert a raw label map.

        Args:
            label: (H, W) uint8, or uint16 where raw values go beyond 255.

        Returns:
            (H, W), class indices and the ignore label, of the smallest unsigned type that holds the latter.

        Raises:
            ValueError: another shape or type, or a value that is not defined: the file is damaged, or not the data
                set's.
        """
        ignore = self.splits[0].spec.ignore_label
        labels = [(value, ignore if index is None else index) for value, index in sorted(self.classes.items())]
        bits = 8 if max(self.classes) < 256 else 16
        if label.ndim != 2 or label.dtype.kind != "u" or label.dtype.itemsize * 8 > bits:
            expected = f"class ids of shape (H, W), unsigned with {bits} bits"
            raise ValueError(f"expected {expected}, found shape {label.shape}, {label.dtype}")
        return LabelRule(tuple(labels))(label).astype(np.min_scalar_type(ignore))


def _ids_in_table(file_name: str) -> dict[int, int]:
    """From a data set's own class id to the index, as one of the package's tables lists them in order."""
    text = (resources.files("err_seg.data") / "tables" / file_name).read_text(encoding="utf-8")
    return {entry["raw_id"]: index for index, entry in enumerate(json.loads(text))}


_VOC = "http://host.robots.ox.ac.uk/pascal/VOC"
_CONTEXT_PAGES = ("label maps: https://cs.stanford.edu/~roozbeh/pascal-context", f"images of VOC 2010: {_VOC}")
_ADE150 = ("ADEChallengeData2016/images/validation", "ADEChallengeData2016/annotations/validation")
_ADE_FULL = ("ADE20K_2021_17_01/images/ADE/validation",) * 2  # label maps lie beside the images
_CONTEXT = ("VOCdevkit/VOC2010/JPEGImages", "VOCdevkit/VOC2010/trainval")
_VOC_2012 = ("VOCdevkit/VOC2012/JPEGImages", "VOCdevkit/VOC2012/SegmentationClass")

_COCO_STUFF_CLASSES = {raw_id - 1: index for raw_id, index in _ids_in_table("coco_stuff171.json").items()}

_ALL = (
    Conversion(
        name="coco-stuff",
        pages=(
            "label maps (stuffthingmaps_trainval2017.zip): https://github.com/nightrome/cocostuff",
            "images: https://cocodataset.org",
        ),
        splits=tuple(
            Split(name, get_dataset(dataset), f"coco-stuff/images/{name}", f"coco-stuff/annotations/{name}")
            for name, dataset in (("train2017", "coco_stuff_train"), ("val2017", "coco_stuff_val"))
        ),
        list_pairs=sources.list_folders,
        # the data set's ids minus one, of which 11 have no class; 255 where unlabelled
        classes={**dict.fromkeys([*range(182), 255]), **_COCO_STUFF_CLASSES},
    ),
    Conversion(
        name="ade150",
        pages=("ADEChallengeData2016: http://sceneparsing.csail.mit.edu",),
        splits=(Split("validation", get_dataset("ade20k_150_val"), *_ADE150),),
        list_pairs=sources.list_folders,
        classes=dict(enumerate([None, *range(150)])),  # counted from 1
    ),
    Conversion(
        name="ade847",
        pages=("ADE20K_2021_17_01: https://groups.csail.mit.edu/vision/datasets/ADE20K",),
        splits=(Split("validation", get_dataset("ade20k_847_val"), *_ADE_FULL),),
        list_pairs=sources.list_ade20k_full,
        classes={**dict.fromkeys(range(26 * 256)), **_ids_in_table("ade847.json")},
        shorter_side=512,
    ),
    Conversion(
        name="pc59",
        pages=_CONTEXT_PAGES,
        splits=(Split("val", get_dataset("pascal_context_59_val"), *_CONTEXT),),
        list_pairs=sources.list_context_59,
        classes={**dict.fromkeys(range(460)), **_ids_in_table("pc59.json")},  # of the 459 classes, 0 for none
    ),
    Conversion(
        name="pc459",
        pages=_CONTEXT_PAGES,
        splits=(Split("val", get_dataset("pascal_context_459_val"), *_CONTEXT),),
        list_pairs=sources.list_context_459,
        classes=dict(enumerate([None, *range(459)])),
    ),
    Conversion(
        name="voc20",
        pages=(f"VOC 2012: {_VOC}",),
        splits=(Split("val", get_dataset("pascal_voc_20_val"), *_VOC_2012),),
        list_pairs=sources.list_voc,
        classes={**dict(enumerate([None, *range(20)])), 255: None},  # 0 is the background, 255 void
        leave_out_ignored=True,
    ),
    Conversion(
        name="voc20b",
        pages=(f"VOC 2012: {_VOC}",),
        splits=(Split("val", get_dataset("pascal_voc_20b_val"), *_VOC_2012),),
        list_pairs=sources.list_voc,
        classes={**dict(enumerate([20, *range(20)])), 255: None},
        leave_out_ignored=True,
    ),
)

CONVERSIONS = {conversion.name: conversion for conversion in _ALL}
"""Every data set by its name on the command line."""
