"""Images, read ahead of the network unless their results are there and no other frame of the video needs them."""

from collections.abc import Callable, Iterable, Iterator, Sequence
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


def read_item(
    item: Item | Problem,
    manifest: Manifest,
    formats: Sequence[str],
    point: tuple[int, int] | None,
    *,
    even_if_done: bool = False,
) -> LoadedItem | Problem:
    """Read an image, which must contain the point (x, y), unless its results are there; problems are passed on."""
    if isinstance(item, Problem):
        return item
    try:
        place = _place(item, manifest)
        is_there = all(result_path(place.files, kind, manifest.folder).is_file() for kind in formats)
        is_done = is_there and manifest.is_done(place, own_files(place.files, formats, manifest.folder))
        if is_done and not even_if_done:
            return LoadedItem(item, place, None, is_done)
        pixels = item.read()
        height, width = pixels.shape[:2]
        if point and not (0 <= point[0] < width and 0 <= point[1] < height):
            raise ImageReadError(f"{item.source}: the point {point} lies outside of this image of {width}x{height}")
        return LoadedItem(item, place, pixels, is_done)
    except OutputError:
        raise
    except ImageReadError as error:
        return Problem(item.source, printable(str(error)))
    except Exception as error:  # of any library that decodes
        return problem_of(item.source, error, "cannot be read")


def _place(item: Item, manifest: Manifest) -> Place:
    try:
        return manifest.place(item.name, item.frame, item.content)
    except OutputError:
        raise
    except OSError:
        item.read()  # its own message says more
        raise


def with_neighbours(
    loaded: Iterable[LoadedItem | Problem], reach: int, read: Callable[..., LoadedItem | Problem]
) -> Iterator[LoadedItem | Problem]:
    """Yield images in order; of those that are done, read frames at most ``reach`` away from one that is not.

    A reach of 0 changes nothing. ``read`` is :func:`read_item` with its manifest, formats and point.
    """
    for window in windows(loaded, reach):
        one, due = window[reach], [near for near in window if isinstance(near, LoadedItem) and not near.is_done]
        assert one
        if isinstance(one, LoadedItem) and one.is_done and one.item.name in {near.item.name for near in due}:
            one = read(one.item, even_if_done=True)
        yield one
