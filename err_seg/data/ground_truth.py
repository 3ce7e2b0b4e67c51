"""A look at some label maps before any work: numbers come also from ground truth that holds next to nothing."""

import logging

import numpy as np

from err_seg.data.dataset import SegmentationPairs
from err_seg.data.spec import DatasetError
from err_seg.utils.errors import DamagedFileError
from err_seg.utils.messages import listed
from err_seg.utils.processes import is_main_process

logger = logging.getLogger(__name__)

SAMPLE = 64


def check_ground_truth(pairs: SegmentationPairs, *, trains: bool = False) -> None:
    """Count the pixels of each class in up to 64 label maps, spread evenly, and log which classes have none.

    Before an error all label maps are read. Those that cannot be read do not count.

    Raises:
        DatasetError: no pixel has a class; or, where several classes are to be learnt, all such pixels have the same.
    """
    spec, classes = pairs.spec, pairs.spec.evaluated_classes
    pixels, maps = np.zeros(len(classes), dtype=np.int64), 0
    needed = 2 if trains and len(classes) > 1 else 1
    spread = np.linspace(0, len(pairs) - 1, min(SAMPLE, len(pairs)), dtype=int).tolist()
    for index in dict.fromkeys([*spread, *range(len(pairs))]):
        if maps >= SAMPLE and np.count_nonzero(pixels) >= needed:
            break
        try:
            label = pairs.load_label(index)
        except DamagedFileError:
            continue
        pixels += np.bincount(label[(label >= 0) & (label != spec.ignore_label)], minlength=len(classes))
        maps += 1
    present, absent = ([classes[index] for index in np.flatnonzero(which)] for which in (pixels, pixels == 0))
    if not maps or not absent:
        return
    found = f"no pixel of {len(absent)} of {len(classes)} classes, such as {listed(absent, 5)}"
    if len(present) < 2:
        found = f"no class but {present[0]!r}" if present else "nothing but ignored pixels"
    found = f"data set {spec.name!r}: {maps} of {len(pairs)} label maps hold {found}"
    if len(present) < needed:
        raise DatasetError(
            f"{found}; nothing can be {'learnt' if trains else 'measured'}. Store masks of two classes as 0 and 1, "
            "not 0 and 255, and declare only classes that have pixels"
        )
    if is_main_process():
        logger.log(logging.WARNING if len(present) < 2 or maps == len(pairs) else logging.INFO, found)
