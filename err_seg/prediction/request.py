"""One call of predict: what it asks for, and its images, read ahead and in batches."""

import itertools
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import TypeVar

from torch import Tensor

from err_seg.data.arrays import ArrayFormat
from err_seg.prediction.refine import refined
from err_seg.prediction.segmentation import Segmentation
from err_seg.prediction.tiles import Windows, plan_windows
from err_seg.text.prompts import PromptStyle
from err_seg.text.vocabulary import Vocabulary
from err_seg.utils.ordered_map import ordered_map

READERS = 2
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class PredictionRequest:
    """What a call asks for, with the model's settings at its beginning; all of it is checked.

    Attributes:
        vocabulary: T class names.
        style: how they become prompts.
        num_kept: K.
        side: S.
        precision: of the network, see :class:`~err_seg.modeling.ERRSeg`.
        size: (H, W) of the results; ``None``: each image's own.
        tile: how many pixels of an image a side of a window covers; ``None``: images are seen as a whole.
        refine: whether borders follow the edges of the image.
        batch_size: images, or windows of an image, that go through the network together.
        arrays: what the values of arrays mean.
    """

    vocabulary: Vocabulary
    style: PromptStyle
    num_kept: int
    side: int
    precision: str
    size: tuple[int, int] | None
    tile: int | None
    refine: bool
    batch_size: int
    arrays: ArrayFormat

    @property
    def images_together(self) -> int:
        """How many images make a batch: one, if its windows do."""
        return 1 if self.tile else self.batch_size

    def windows(self, image: Tensor) -> Windows | None:
        """Plan the windows of an image (3, h, w); ``None`` if it is seen as a whole."""
        windows = plan_windows(image.shape[1:], self.tile, self.side) if self.tile else None
        return None if windows is None or windows.is_whole else windows

    def sizes(self, images: Sequence[Tensor]) -> list[tuple[int, int]]:
        """Return the sizes (H, W) of the results of images (3, h, w)."""
        return [self.size or (image.shape[1], image.shape[2]) for image in images]

    def results(
        self,
        readers: Iterable[Callable[[], Tensor]],
        segment: Callable[[list[Tensor]], list[Segmentation]],
        ahead: bool = True,
    ) -> Generator[Segmentation, None, None]:
        """Read images, segment them batch by batch, and yield their results, which know how to read them again.

        Args:
            readers: each reads an image to (3, h, w) uint8 RGB.
            segment: from the images of a batch to their results.
            ahead: read a few images ahead, in threads; where there is nothing to read, these would only be in the way.

        Raises:
            Exception: what readers raise, after the results of all images before.
        """
        together = self.images_together
        opened = (
            ordered_map(lambda read: (read, read()), readers, threads=READERS, ahead=2 * together)
            if ahead
            else ((read, read()) for read in readers)
        )
        with closing(opened):
            for batch in batches(opened, together):
                sources, images = zip(*batch, strict=True)
                for source, image, result in zip(sources, images, segment(list(images)), strict=True):
                    known = replace(result, source=source)
                    yield refined(known, image) if self.refine else known


def batches(items: Iterator[T], size: int) -> Iterator[list[T]]:
    """Yield lists of so many items; the last may be shorter, also if the items end with an error, which follows it."""
    while True:
        batch: list[T] = []
        failure = None
        try:
            for item in itertools.islice(items, size):
                batch.append(item)
        except Exception as error:
            failure = error
        if batch:
            yield batch
        if failure is not None:
            raise failure
        if len(batch) < size:
            return
