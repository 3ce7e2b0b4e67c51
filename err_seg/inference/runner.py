"""The loop over images: reads ahead and writes in threads, predicts in batches, and skips what fails."""

import errno
import itertools
import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field

import numpy as np
import torch
from tqdm import tqdm

from err_seg.data import ImageReadError
from err_seg.inference.attention import Attention, record_attention
from err_seg.inference.failures import check_device, is_out_of_memory, reason_of
from err_seg.inference.formats import Result, result_paths, write_result
from err_seg.inference.inputs import Item, Problem
from err_seg.inference.manifest import Manifest, OutputError, Place
from err_seg.inference.names import printable
from err_seg.inference.report import Report
from err_seg.inference.words import Words
from err_seg.modeling.err_seg import ERRSeg
from err_seg.modeling.segmentation import Segmentation
from err_seg.overlap import ordered_map

logger = logging.getLogger(__name__)

READERS = WRITERS = 2
# what a file system says about a name rather than about itself
ABOUT_A_NAME = (errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ, errno.ENOTDIR, errno.EISDIR, errno.EEXIST)


def run(
    model: ERRSeg,
    items: Iterable[Item | Problem],
    words: Words,
    manifest: Manifest,
    *,
    formats: Sequence[str] = ("overlay",),
    batch_size: int = 1,
    num_kept: int | None = None,
    tile: int | str | None = None,
    refine: bool = False,
    point: tuple[int, int] | None = None,
    region_names: bool = False,
    total: int | None = None,
) -> Report:
    """Predict images and write their results; images that fail are reported and left out.

    If memory is too small for a batch, all later batches are smaller.

    Args:
        model: see :func:`err_seg.load`.
        items: see :func:`~err_seg.inference.iterate_items`.
        words: the classes.
        manifest: of the results' folder, see :func:`~err_seg.inference.open_output`; finished images are skipped.
        formats: of :data:`~err_seg.inference.FORMATS`.
        batch_size: images, or windows of an image, that go through the network together.
        num_kept: K, instead of the model's own.
        tile, refine: see :meth:`~err_seg.modeling.ERRSeg.predict`.
        point: (x, y), the pixel that attention is shown for; images that do not contain it are reported.
        region_names: write names on the regions of overlays.
        total: number of items for the progress bar, if known.

    Raises:
        OutputError: a result cannot be written; all earlier ones are complete.
        DeviceError: the model's device failed; all earlier results are complete.
        VocabularyError: words that the network cannot read.
    """
    model.embed_vocabulary(words.vocabulary)  # so that unusable words are found before anything is read
    job = _Job(model, words, manifest, formats, batch_size, num_kept, tile, refine, point, region_names)
    with job.report.network.span(), tqdm(total=total, unit="image", disable=None) as progress:
        opened = ordered_map(job.open, items, threads=READERS, ahead=2 * batch_size)
        predicted = job.predict_all(opened, progress)
        written = ordered_map(job.write, predicted, threads=WRITERS, ahead=WRITERS + batch_size)
        with closing(opened), closing(written):
            for result in written:
                job.count(result)
    return job.report


@dataclass(frozen=True)
class _Opened:
    """An image to predict; ``pixels`` is ``None`` if its results are there."""

    item: Item
    place: Place
    pixels: np.ndarray | None


@dataclass(frozen=True)
class _Predicted:
    """An image and what the network says about it."""

    opened: _Opened
    segmentation: Segmentation
    attention: Attention | None


@dataclass
class _Job:
    """A call of :func:`run`: its arguments and its progress."""

    model: ERRSeg
    words: Words
    manifest: Manifest
    formats: Sequence[str]
    batch_size: int
    num_kept: int | None
    tile: int | str | None
    refine: bool
    point: tuple[int, int] | None
    region_names: bool
    report: Report = field(default_factory=Report)

    def open(self, item: Item | Problem) -> _Opened | Problem:
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
            if self.manifest.is_done(place, result_paths(place.files, self.formats, self.manifest.folder)):
                return _Opened(item, place, None)
            pixels = item.read()
            if self.point and not (0 <= self.point[0] < pixels.shape[1] and 0 <= self.point[1] < pixels.shape[0]):
                size = f"{pixels.shape[1]}x{pixels.shape[0]}"
                raise ImageReadError(f"{item.source}: the point {self.point} lies outside of this image of {size}")
            return _Opened(item, place, pixels)
        except OutputError:
            raise
        except MemoryError:
            return Problem(item.source, f"{item.source}: too large for the memory")
        except ImageReadError as error:
            return Problem(item.source, printable(str(error)))
        except Exception as error:  # of any library that decodes
            return Problem(item.source, printable(f"{item.source}: cannot be read ({reason_of(error)})"))

    def predict_all(self, opened: Iterator[_Opened | Problem], progress: tqdm) -> Iterator[_Predicted]:
        """Yield the predictions of the images, and count those that cannot be read or are done.

        Raises:
            DeviceError: the model's device failed.
        """
        readable = self._without_finished(opened, progress)
        while batch := list(itertools.islice(readable, self.batch_size)):
            with self.report.network.working():
                predictions = self._predict(batch)
            yield from predictions
            progress.update(len(batch))

    def _without_finished(self, opened: Iterator[_Opened | Problem], progress: tqdm) -> Iterator[_Opened]:
        for one in opened:
            if isinstance(one, _Opened) and one.pixels is not None:
                yield one
                continue
            if isinstance(one, Problem):
                self.report.problems.append(one)
            else:
                self.report.skipped += 1
            progress.update()

    def _predict(self, batch: list[_Opened]) -> list[_Predicted]:
        """Predict a batch; if that fails, smaller ones, so that one image does not affect the others.

        Raises:
            DeviceError: the model's device failed.
        """
        try:
            return self._predict_together(batch)
        except Exception as error:  # a network can fail in any way
            reason, is_memory = reason_of(error), is_out_of_memory(error)
        check_device(self.model.device, reason)
        if self.model.device.type == "cuda":
            torch.cuda.empty_cache()
        if len(batch) == 1:
            source = batch[0].item.source
            what = "too large for the memory" if is_memory else "the network failed on it"
            self.report.problems.append(Problem(source, f"{source}: {what}: {reason}"))
            return []
        size = 1
        if is_memory:
            size = self.batch_size = len(batch) // 2
            logger.warning("out of memory with %d images at a time; going on with %d", len(batch), size)
        return [done for i in range(0, len(batch), size) for done in self._predict(batch[i : i + size])]

    def _predict_together(self, batch: list[_Opened]) -> list[_Predicted]:
        model, names = self.model, self.words.vocabulary
        images = [opened.pixels for opened in batch]
        predictions = model.predict(
            images, names, num_kept=self.num_kept, tile=self.tile, refine=self.refine, batch_size=len(batch)
        )
        results = []
        for opened, pixels, prediction in zip(batch, images, predictions, strict=True):
            assert pixels is not None
            shown = record_attention(model, pixels, names, self.num_kept) if "attention" in self.formats else None
            _ = prediction.labels  # kept: made here, since two threads that compute hinder each other
            # so that the writers' queue does not fill the device's memory
            results.append(_Predicted(opened, prediction.cpu(), shown))
            if opened.place.name != opened.item.name:
                self.report.renamed[printable(opened.place.source)] = printable(opened.place.name)
        return results

    def write(self, predicted: _Predicted) -> Result | Problem:
        """Write the results of an image, and record that they are complete.

        Raises:
            OutputError: nothing can be written any more.
        """
        item, place, pixels = predicted.opened.item, predicted.opened.place, predicted.opened.pixels
        assert pixels is not None
        try:
            segmentation, words = predicted.segmentation, self.words
            labels = words.labels(segmentation)
            shown = predicted.attention, self.point, self.region_names
            result = Result(place.files, item.source, pixels, segmentation, labels, words, *shown)
            write_result(result, self.formats, self.manifest.folder)
            self.manifest.add(place)
            _ = result.areas  # kept: counted here, not while the network waits
            return result
        except OSError as error:
            what = f"cannot write the results of {item.source} to {self.manifest.folder}: {error}"
            if error.errno not in ABOUT_A_NAME:
                raise OutputError(what) from error
            return Problem(item.source, printable(what))
        except Exception as error:  # of any library that draws or encodes
            what = "too large for the memory" if is_out_of_memory(error) else "its results cannot be written"
            return Problem(item.source, f"{item.source}: {what} ({reason_of(error)})")

    def count(self, written: Result | Problem) -> None:
        """Add an image to the report."""
        if isinstance(written, Problem):
            self.report.problems.append(written)
        else:
            self.report.add(written)
