"""A look at some label maps before any work, since ground truth that holds next to nothing gives numbers all the same."""

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
        pixels += np.bincount(label[label != spec.ignore_label], minlength=len(classes))
        maps += 1
    found = [name for name, count in zip(classes, pixels, strict=True) if count]
    absent = [name for name in classes if name not in found]
    alone = f"the only class in its {maps} label maps is {found[0]!r}" if len(found) == 1 else ""
    if maps and len(found) < needed:
        problem = alone or f"its {maps} label maps hold nothing but the ignore label"
        raise DatasetError(
            f"data set {spec.name!r}: {problem}, so nothing can be {'learnt' if trains else 'measured'}. Pixels of "
            f"{spec.ignore_label} are ignored: masks of 0 and 255 must be stored as 0 and 1"
            + f", or the vocabulary be {found[0]!r} alone" * bool(found)
        )
    if absent and maps and is_main_process():
        logger.log(
            logging.WARNING if alone or maps == len(pairs) else logging.INFO,
            "data set %r: %d of %d classes have no pixel in %d of %d label maps, such as %s%s",
            *(spec.name, len(absent), len(classes), maps, len(pairs), listed(absent, 5), "; " * bool(alone) + alone),
        )
