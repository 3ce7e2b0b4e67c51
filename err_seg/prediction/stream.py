"""A stream of results: images are read ahead, and segmented batch by batch."""

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import replace
from typing import TypeVar

from torch import Tensor

from err_seg.prediction.refine import refined
from err_seg.prediction.segmentation import Segmentation
from err_seg.utils.ordered_map import ordered_map

READERS = 2
T = TypeVar("T")


def stream_results(
    readers: Iterable[Callable[[], Tensor]],
    segment: Callable[[list[Tensor]], list[Segmentation]],
    batch_size: int,
    *,
    refine: bool,
    ahead: bool,
) -> Generator[Segmentation, None, None]:
    """Read images, segment them, and yield their results, each with its reader as ``source``.

    Args:
        readers: each reads an image to (3, h, w) uint8 RGB.
        segment: from the images of a batch to their results.
        batch_size: how many images make a batch.
        refine: let the borders follow the edges of the image.
        ahead: read a few images ahead, in threads; this only helps where files are read.

    Raises:
        Exception: what readers raise, after the results of all images before.
        NonFiniteError: the network computed NaN or infinity.
    """
    opened = (
        ordered_map(lambda read: (read, read()), readers, threads=READERS, ahead=2 * batch_size)
        if ahead
        else ((read, read()) for read in readers)
    )
    with closing(opened):
        for batch in batches(opened, batch_size):
            results = segment([image for _, image in batch])
            for (source, image), result in zip(batch, results, strict=True):
                found = replace(result.checked(), source=source)
                yield refined(found, image) if refine else found


def batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Yield lists of so many items; the last may be shorter, also if the items end with an error, which follows it."""
    batch: list[T] = []
    try:
        for item in items:
            batch.append(item)
            if len(batch) == size:
                yield batch
                batch = []
    except Exception:
        if batch:
            yield batch
        raise
    if batch:
        yield batch
