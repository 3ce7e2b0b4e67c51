"""The loop over images: reads ahead and writes in threads, predicts in batches, and skips what fails."""

import errno
import itertools
import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace

import torch
from tqdm import tqdm

from err_seg.jobs.failures import check_device, is_out_of_memory, reason_of
from err_seg.jobs.formats import Result, write_result
from err_seg.jobs.inputs import Item, Problem
from err_seg.jobs.job_report import Finished, Report
from err_seg.jobs.label_set import LabelSet
from err_seg.jobs.manifest import Manifest, OutputError
from err_seg.jobs.prefetch import Opened, Opener
from err_seg.jobs.result_names import printable
from err_seg.prediction.attention import Attention, record_attention
from err_seg.prediction.model import ERRSeg
from err_seg.prediction.segmentation import Segmentation
from err_seg.prediction.smoothing import averaged, windows
from err_seg.utils.ordered_map import ordered_map

logger = logging.getLogger(__name__)

READERS = WRITERS = 2
# what a file system says about a name rather than about itself
ABOUT_A_NAME = (errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ, errno.ENOTDIR, errno.EISDIR, errno.EEXIST)


def run(
    model: ERRSeg,
    items: Iterable[Item | Problem],
    words: LabelSet,
    manifest: Manifest,
    *,
    formats: Sequence[str] = ("overlay",),
    batch_size: int = 1,
    num_kept: int | None = None,
    tile: int | str | None = None,
    refine: bool = False,
    smooth: int = 0,
    point: tuple[int, int] | None = None,
    region_names: bool = False,
    total: int | None = None,
) -> Report:
    """Predict images and write their results; images that fail are reported and left out.

    If memory is too small for a batch, all later batches are smaller.

    Args:
        model: see :func:`err_seg.load`.
        items: see :func:`~err_seg.jobs.iterate_items`.
        words: the classes.
        manifest: of the results' folder, see :func:`~err_seg.jobs.open_output`; finished images are skipped.
        formats: of :data:`~err_seg.jobs.FORMATS`.
        batch_size: images, or windows of an image, that go through the network together.
        num_kept: K, instead of the model's own.
        tile, refine: see :meth:`~err_seg.modeling.ERRSeg.predict`.
        smooth: how many frames of a video before, and as many after, each frame is averaged with, see
            :func:`err_seg.smoothed`; all frames of a video must then be among the items.
        point: (x, y), the pixel that attention is shown for; images that do not contain it are reported.
        region_names: write names on the regions of overlays.
        total: number of items for the progress bar, if known.

    Raises:
        OutputError: a result cannot be written; all earlier ones are complete.
        DeviceError: the model's device failed; all earlier results are complete.
        VocabularyError: words that the network cannot read.
    """
    model.embed_vocabulary(words.vocabulary)  # so that unusable words are found before anything is read
    job = _Job(model, words, manifest, formats, batch_size, num_kept, tile, refine, smooth, point, region_names)
    opener = Opener(manifest, formats, point)
    with job.report.network.span(), tqdm(total=total, unit="image", disable=None) as progress:
        opened = ordered_map(opener.open, items, threads=READERS, ahead=2 * batch_size)
        predicted = job.predict_all(opener.with_neighbours(opened, smooth), progress)
        finished = job.smoothed(predicted) if smooth else predicted
        written = ordered_map(job.write, finished, threads=WRITERS, ahead=WRITERS + batch_size)
        with closing(opened), closing(written):
            for result in written:
                job.count(result)
    return job.report


@dataclass(frozen=True)
class _Predicted:
    """An image and what the network says about it."""

    opened: Opened
    segmentation: Segmentation
    attention: Attention | None


@dataclass
class _Job:
    """A call of :func:`run`: its arguments and its progress."""

    model: ERRSeg
    words: LabelSet
    manifest: Manifest
    formats: Sequence[str]
    batch_size: int
    num_kept: int | None
    tile: int | str | None
    refine: bool
    smooth: int
    point: tuple[int, int] | None
    region_names: bool
    report: Report = field(default_factory=Report)

    def predict_all(self, opened: Iterator[Opened | Problem], progress: tqdm) -> Iterator[_Predicted]:
        """Yield the predictions of the images, and count those that cannot be read or are done.

        Raises:
            DeviceError: the model's device failed.
        """
        readable = self._due(opened, progress)
        while batch := list(itertools.islice(readable, self.batch_size)):
            with self.report.network.working():
                predictions = self._predict(batch)
            yield from predictions
            progress.update(len(batch))

    def _due(self, opened: Iterator[Opened | Problem], progress: tqdm) -> Iterator[Opened]:
        for one in opened:
            if isinstance(one, Opened) and one.pixels is not None:
                yield one
                continue
            if isinstance(one, Problem):
                self.report.problems.append(one)
            else:
                self.report.skip(one.finished)
            progress.update()

    def _predict(self, batch: list[Opened]) -> list[_Predicted]:
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
            self.report.problems.append(_failed(batch[0].item, reason, is_memory))
            return []
        size = 1
        if is_memory:
            size = self.batch_size = len(batch) // 2
            logger.warning("out of memory with %d images at a time; going on with %d", len(batch), size)
        return [done for i in range(0, len(batch), size) for done in self._predict(batch[i : i + size])]

    def _predict_together(self, batch: list[Opened]) -> list[_Predicted]:
        model, names = self.model, self.words.vocabulary
        images = [opened.pixels for opened in batch]
        predictions = model.predict(
            images, names, num_kept=self.num_kept, tile=self.tile, refine=self.refine, batch_size=len(batch)
        )
        results = []
        for opened, pixels, prediction in zip(batch, images, predictions, strict=True):
            assert pixels is not None
            shown = record_attention(model, pixels, names, self.num_kept) if "attention" in self.formats else None
            results.append(_Predicted(opened, prediction if self.smooth else _ready(prediction), shown))
            if opened.place.name != opened.item.name:
                self.report.renamed[printable(opened.place.source)] = printable(opened.place.name)
        return results

    def smoothed(self, predicted: Iterator[_Predicted]) -> Iterator[_Predicted]:
        """Average the frames of each video; those whose results are there were needed for others, and are counted.

        Raises:
            DeviceError: the model's device failed.
        """
        for window in windows(predicted, self.smooth):
            one = window[self.smooth]
            assert one
            if one.opened.is_done:
                self.report.skip(one.opened.finished)
                continue
            item = one.opened.item
            frames = [other.segmentation if other and other.opened.item.name == item.name else None for other in window]
            try:
                with self.report.network.working():
                    segmentation = _ready(averaged(frames))
            except Exception as error:  # of any device
                check_device(self.model.device, reason_of(error))
                self.report.problems.append(_failed(item, reason_of(error), is_out_of_memory(error)))
            else:
                yield replace(one, segmentation=segmentation)

    def write(self, predicted: _Predicted) -> tuple[Finished, Result] | Problem:
        """Write the results of an image, and record that they are complete.

        Raises:
            OutputError: nothing can be written any more.
        """
        item, place, pixels = predicted.opened.item, predicted.opened.place, predicted.opened.pixels
        assert pixels is not None
        try:
            segmentation, words = predicted.segmentation, self.words
            labels = words.labels(segmentation)
            weights = self.model.source.facts() if self.model.source else None
            shown = predicted.attention, self.point, self.region_names, weights
            result = Result(place.files, item.source, pixels, segmentation, labels, words, *shown)
            write_result(result, self.formats, self.manifest.folder)
            self.manifest.add(place)
            _ = result.areas  # kept: counted here, not while the network waits
            return predicted.opened.finished, result
        except OSError as error:
            what = f"cannot write the results of {item.source} to {self.manifest.folder}: {error}"
            if error.errno not in ABOUT_A_NAME:
                raise OutputError(what) from error
            return Problem(item.source, printable(what))
        except Exception as error:  # of any library that draws or encodes
            what = "too large for the memory" if is_out_of_memory(error) else "its results cannot be written"
            return Problem(item.source, f"{item.source}: {what} ({reason_of(error)})")

    def count(self, written: tuple[Finished, Result] | Problem) -> None:
        """Add an image to the report."""
        if isinstance(written, Problem):
            self.report.problems.append(written)
        else:
            self.report.add(*written)


def _ready(segmentation: Segmentation) -> Segmentation:
    """Make the labels here, since two threads that compute hinder each other, and leave the device to what comes."""
    _ = segmentation.labels
    return segmentation.cpu()


def _failed(item: Item, reason: str, is_memory: bool) -> Problem:
    what = "too large for the memory" if is_memory else "the network failed on it"
    return Problem(item.source, f"{item.source}: {what}: {reason}")
