"""Images, opened ahead of the network: read unless their results are there and no other frame needs them."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from err_seg.data import ImageReadError
from err_seg.jobs.failures import reason_of
from err_seg.jobs.formats import result_paths
from err_seg.jobs.inputs import Item, Problem
from err_seg.jobs.job_report import Finished
from err_seg.jobs.manifest import Manifest, OutputError, Place
from err_seg.jobs.result_names import printable
from err_seg.prediction.smoothing import windows


@dataclass(frozen=True)
class Opened:
    """An image.

    Attributes:
        item: what it was opened from.
        place: of its results.
        pixels: (H, W, 3) uint8 RGB; ``None`` if nothing needs them.
        is_done: whether its results are there.
    """

    item: Item
    place: Place
    pixels: np.ndarray | None
    is_done: bool

    @property
    def finished(self) -> Finished:
        """Its result, which is complete or will be."""
        return Finished(self.place.name, self.place.frame, self.place.files, self.place.source, self.item.source)


@dataclass(frozen=True)
class Opener:
    """What it takes to open images: the manifest of the results, their formats, and a pixel they must contain."""

    manifest: Manifest
    formats: Sequence[str]
    point: tuple[int, int] | None

    def open(self, item: Item | Problem, *, even_if_done: bool = False) -> Opened | Problem:
        """Read an image unless it is done."""
        if isinstance(item, Problem):
            return item
        try:
            try:
                place = self.manifest.place(item.name, item.frame, item.content)
            except OutputError:
                raise
            except OSError:
                item.read()  # its own message says more
                raise
            is_done = self.manifest.is_done(place, result_paths(place.files, self.formats, self.manifest.folder))
            if is_done and not even_if_done:
                return Opened(item, place, None, is_done)
            pixels = item.read()
            if self.point and not (0 <= self.point[0] < pixels.shape[1] and 0 <= self.point[1] < pixels.shape[0]):
                size = f"{pixels.shape[1]}x{pixels.shape[0]}"
                raise ImageReadError(f"{item.source}: the point {self.point} lies outside of this image of {size}")
            return Opened(item, place, pixels, is_done)
        except OutputError:
            raise
        except MemoryError:
            return Problem(item.source, f"{item.source}: too large for the memory")
        except ImageReadError as error:
            return Problem(item.source, printable(str(error)))
        except Exception as error:  # of any library that decodes
            return Problem(item.source, printable(f"{item.source}: cannot be read ({reason_of(error)})"))

    def with_neighbours(self, opened: Iterable[Opened | Problem], reach: int) -> Iterator[Opened | Problem]:
        """Pass images on; of those that are done, read the frames that are at most ``reach`` away from one that is not.

        Args:
            opened: what :meth:`open` returned for the items, in order.
            reach: a number of frames of the same video; 0 changes nothing.
        """
        for window in windows(opened, reach):
            one = window[reach]
            assert one
            if isinstance(one, Opened) and one.is_done and any(_is_due(other, one.item.name) for other in window):
                one = self.open(one.item, even_if_done=True)
            yield one


def _is_due(opened: Opened | Problem | None, name: str) -> bool:
    return isinstance(opened, Opened) and opened.item.name == name and not opened.is_done
