"""Smoothed videos: the probabilities of every frame averaged with those of the frames before and after it."""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice, repeat
from typing import TypeVar

import torch

from err_seg.prediction.refine import RefinedSegmentation, refined
from err_seg.prediction.segmentation import Segmentation
from err_seg.utils.validation import check_count

T = TypeVar("T")


def smoothed(results: Iterable[Segmentation], reach: int) -> Iterator[Segmentation]:
    """Average each result of a video's frames with those of the frames around it, so that labels flicker less.

    A frame at distance d has the weight reach + 1 − d. A class that was not kept in a frame has probability 0 there,
    so that a result may show up to (2 · reach + 1) · K classes.

    Args:
        results: of the frames, in order; see :meth:`err_seg.ERRSeg.predict_stream`. The stream may be endless.
        reach: how many frames before, and as many after, a frame is averaged with.

    Yields:
        As many results, each as soon as those of the ``reach`` frames after it are there.

    Raises:
        ArgumentError: ``reach`` is not a whole number of at least 1.
    """
    check_count("reach", reach, "a whole number of frames, at least 1")
    return (averaged(window) for window in windows(results, reach))


def windows(items: Iterable[T], reach: int) -> Iterator[list[T | None]]:
    """Yield for each item those around it: 2 · reach + 1, the item in the middle, ``None`` beyond both ends."""
    padded = chain(repeat(None, reach), items, repeat(None, reach))
    window = deque(islice(padded, 2 * reach), maxlen=2 * reach + 1)
    for item in padded:
        window.append(item)
        yield list(window)


def averaged(window: Sequence[Segmentation | None]) -> Segmentation:
    """Average the middle one of an odd number of results with all others of its size and vocabulary."""
    reach = len(window) // 2
    middle = window[reach]
    assert middle is not None
    weighted = [
        (reach + 1 - abs(place - reach), result)
        for place, result in enumerate(window)
        if result is not None and _kind(result) == _kind(middle)
    ]
    total = sum(weight for weight, _ in weighted)
    kept = torch.cat([result.kept for _, result in weighted]).unique()  # ascending
    maps = middle.probabilities.new_zeros(len(kept), *middle.probabilities.shape[1:])
    class_scores = torch.zeros_like(middle.class_scores)
    for number, result in weighted:
        weight = number / total
        maps[torch.searchsorted(kept, result.kept)] += weight * result.probabilities
        class_scores += weight * result.class_scores
    maps.clamp_(max=1)  # weights add up to 1 but for rounding
    facts = (middle.vocabulary, middle.size, class_scores, middle.source, middle.contrast, middle.calibration)
    found = Segmentation(maps, kept, *facts)
    return refined(found, middle.guide) if isinstance(middle, RefinedSegmentation) else found


def _kind(result: Segmentation) -> tuple[object, ...]:
    return result.size, result.names, result.probabilities.shape[1:]
