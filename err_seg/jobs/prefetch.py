"""Images, read ahead of the network unless their results are there and no other frame of the video needs them."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from err_seg.data import ImageReadError
from err_seg.jobs.failures import Problem, problem_of
from err_seg.jobs.formats import result_path
from err_seg.jobs.inputs import Item
from err_seg.jobs.job_outputs import own_files
from err_seg.jobs.job_report import Finished
from err_seg.jobs.manifest import Manifest, OutputError, Place
from err_seg.jobs.result_names import printable
from err_seg.prediction.smoothing import windows


@dataclass(frozen=True)
class LoadedItem:
    """An image.

    Attributes:
        item: the input.
        place: of its results.
        pixels: (H, W, 3) uint8 RGB, masked where there is no data; ``None`` if nothing needs them.
        is_done: whether its results are there.
    """

    item: Item
    place: Place
    pixels: np.ndarray | None
    is_done: bool

    @property
    def finished(self) -> Finished:
        """Its result, which is complete or will be."""
        return Finished(self.place, self.item.source)


@dataclass(frozen=True)
class ItemReader:
    """Reads images whose results are not there.

    Attributes:
        manifest: of the results.
        formats: that the results must have.
        point: (x, y), a pixel that each image must contain.
    """

    manifest: Manifest
    formats: Sequence[str]
    point: tuple[int, int] | None

    def read(self, item: Item | Problem, *, even_if_done: bool = False) -> LoadedItem | Problem:
        """Read an image unless its results are there; problems are passed on."""
        if isinstance(item, Problem):
            return item
        try:
            place = self._place(item)
            name, folder = place.files, self.manifest.folder
            is_there = all(result_path(name, kind, folder).is_file() for kind in self.formats)
            is_done = is_there and self.manifest.is_done(place, own_files(name, self.formats, folder))
            if is_done and not even_if_done:
                return LoadedItem(item, place, None, is_done)
            pixels = item.read()
            if self.point and not (0 <= self.point[0] < pixels.shape[1] and 0 <= self.point[1] < pixels.shape[0]):
                size = f"{pixels.shape[1]}x{pixels.shape[0]}"
                raise ImageReadError(f"{item.source}: the point {self.point} lies outside of this image of {size}")
            return LoadedItem(item, place, pixels, is_done)
        except OutputError:
            raise
        except ImageReadError as error:
            return Problem(item.source, printable(str(error)))
        except Exception as error:  # of any library that decodes
            return problem_of(item.source, error, "cannot be read")

    def _place(self, item: Item) -> Place:
        try:
            return self.manifest.place(item.name, item.frame, item.content)
        except OutputError:
            raise
        except OSError:
            item.read()  # its own message says more
            raise

    def with_neighbours(self, loaded: Iterable[LoadedItem | Problem], reach: int) -> Iterator[LoadedItem | Problem]:
        """Yield images; of those that are done, read frames at most ``reach`` away from one that is not.

        Args:
            loaded: the results of :meth:`read` for all items, in order.
            reach: a number of frames of the same video; 0 changes nothing.
        """
        for window in windows(loaded, reach):
            one, due = window[reach], [near for near in window if isinstance(near, LoadedItem) and not near.is_done]
            assert one
            if isinstance(one, LoadedItem) and one.is_done and one.item.name in {near.item.name for near in due}:
                one = self.read(one.item, even_if_done=True)
            yield one
