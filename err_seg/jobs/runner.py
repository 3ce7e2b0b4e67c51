"""The loop over images: reads ahead and writes in threads, predicts in batches, and skips what fails."""

import errno
import itertools
import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import TypeAlias

import torch

from err_seg.jobs.failures import Problem, check_device, is_out_of_memory, problem_of
from err_seg.jobs.formats import Result, write_result
from err_seg.jobs.inputs import Item
from err_seg.jobs.job_outputs import own_files
from err_seg.jobs.job_report import Finished, Report
from err_seg.jobs.label_set import LabelSet
from err_seg.jobs.manifest import Manifest, OutputError
from err_seg.jobs.prefetch import LoadedItem, read_item, with_neighbours
from err_seg.jobs.result_names import printable
from err_seg.prediction.attention import record_attention
from err_seg.prediction.model import ERRSeg
from err_seg.prediction.segmentation import Segmentation
from err_seg.prediction.smoothing import averaged, windows
from err_seg.text.vocabularies import VocabularySource
from err_seg.utils.fingerprint import weights_digest
from err_seg.utils.ordered_map import ordered_map
from err_seg.utils.progress import ProgressBar

logger = logging.getLogger(__name__)

READERS = WRITERS = 2
# what a file system says about a name rather than about itself
ABOUT_A_NAME = (errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ, errno.ENOTDIR, errno.EISDIR, errno.EEXIST)


Prediction: TypeAlias = tuple[LoadedItem, Result]
"""An image and the network's result."""


@dataclass
class Job:
    """Predicts images and writes their results; images that fail are reported and left out.

    Attributes:
        model: see :func:`err_seg.load`.
        label_set: the classes; there may be none if ``formats`` are the features alone.
        manifest: of the results' folder, see :func:`~err_seg.jobs.open_output`; finished images are skipped.
        formats: of :data:`~err_seg.jobs.FORMATS`.
        batch_size: images, or windows of an image, that go through the network together; it shrinks when memory is
            too small for a batch.
        contrast: names that compete with the classes, see :meth:`~err_seg.ERRSeg.predict`.
        num_kept: K, instead of the model's own.
        tile, refine: see :meth:`~err_seg.ERRSeg.predict`.
        smooth: how many frames of a video before, and as many after, each frame is averaged with, see
            :func:`err_seg.smoothed`; all frames of a video must then be among the items.
        point: (x, y), the pixel that attention is shown for; images that do not contain it are reported.
        region_names: write names on the regions of overlays.
        report: what was done.
    """

    model: ERRSeg
    label_set: LabelSet
    manifest: Manifest
    formats: Sequence[str] = ("overlay",)
    batch_size: int = 1
    contrast: VocabularySource | None = None
    num_kept: int | None = None
    tile: int | str | None = None
    refine: bool = False
    smooth: int = 0
    point: tuple[int, int] | None = None
    region_names: bool = False
    report: Report = field(default_factory=Report)

    def run(self, items: Iterable[Item | Problem], total: int | None = None) -> Report:
        """Predict images and write their results.

        Args:
            items: see :func:`~err_seg.jobs.iterate_items`.
            total: number of items for the progress bar, if known.

        Raises:
            OutputError: a result cannot be written; all earlier ones are complete.
            DeviceError: the model's device failed; all earlier results are complete.
            VocabularyError: the network cannot encode a class name.
        """
        if self.label_set.classes:
            self.model.embed_vocabulary(self.label_set.vocabulary)  # unusable names are found before anything is read
        read = partial(read_item, manifest=self.manifest, formats=self.formats, point=self.point)
        with self.report.network.timing("whole"), ProgressBar(total=total, unit="image", disable=None) as progress:
            loaded = ordered_map(read, items, threads=READERS, ahead=2 * self.batch_size)
            predictions = self._predict_all(with_neighbours(loaded, self.smooth, read), progress)
            results = self._smoothed(predictions) if self.smooth else predictions
            written = ordered_map(self._write, results, threads=WRITERS, ahead=WRITERS + self.batch_size)
            with closing(loaded), closing(written):
                for outcome in written:
                    if isinstance(outcome, Problem):
                        self.report.problems.append(outcome)
                    else:
                        self.report.add(*outcome)
        return self.report

    def _predict_all(self, loaded: Iterator[LoadedItem | Problem], progress: ProgressBar) -> Iterator[Prediction]:
        due = self._due(loaded, progress)
        while batch := list(itertools.islice(due, self.batch_size)):
            with self.report.network.timing("work"):
                predictions = self._predict(batch)
            yield from predictions
            progress.update(len(batch))

    def _due(self, loaded: Iterator[LoadedItem | Problem], progress: ProgressBar) -> Iterator[LoadedItem]:
        """Yield the images to predict; count those that are done or cannot be read."""
        for one in loaded:
            if isinstance(one, LoadedItem) and one.pixels is not None:
                yield one
                continue
            if isinstance(one, Problem):
                self.report.problems.append(one)
            else:
                self.report.skip(one.finished)
            progress.update()

    def _predict(self, batch: list[LoadedItem]) -> list[Prediction]:
        """Predict a batch; if that fails, smaller ones, so that one image does not affect the others."""
        try:
            return self._predict_together(batch)
        except Exception as error:  # a network can fail in any way
            problem, is_memory = self._problem_of(batch[0], error), is_out_of_memory(error)
        # from here on, nothing refers to the tensors of the call that failed
        if self.model.device.type == "cuda":
            torch.cuda.empty_cache()
        if len(batch) == 1:
            self.report.problems.append(problem)
            return []
        size = 1
        if is_memory:
            size = self.batch_size = len(batch) // 2
            logger.warning("out of memory with %d images at a time; going on with %d", len(batch), size)
        return [done for i in range(0, len(batch), size) for done in self._predict(batch[i : i + size])]

    def _predict_together(self, batch: list[LoadedItem]) -> list[Prediction]:
        images, names = [loaded.pixels for loaded in batch], self.label_set.vocabulary
        options = {"contrast": self.contrast, "num_kept": self.num_kept, "tile": self.tile, "refine": self.refine}
        options |= {"batch_size": len(batch)}
        is_wanted, predictions = "features" in self.formats, []
        features = self.model.features(images, batch_size=len(batch)) if is_wanted else [None] * len(batch)
        if names:
            results = self.model.predict(images, names, **options)
        else:  # nothing is asked about the images
            none = torch.zeros(0)
            results = [Segmentation(none[:, None, None], none.long(), (), one.size, none) for one in features if one]
        for loaded, segmentation, found in zip(batch, results, features, strict=True):
            assert loaded.pixels is not None
            attention = None
            if "attention" in self.formats:
                attention = record_attention(self.model, loaded.pixels, names, self.num_kept, self.contrast)
            result = Result(
                name=loaded.place.files,
                source=loaded.item.source,
                image=loaded.pixels,
                segmentation=segmentation if self.smooth else _ready(segmentation),
                label_set=self.label_set,
                attention=attention,
                point=self.point,
                region_names=self.region_names,
                weights=self.model.source.facts() if self.model.source else None,
                features=found and (found._replace(embeddings=found.embeddings.cpu()), self._weights),
            )
            predictions.append((loaded, result))
            if loaded.place.name != loaded.item.name:
                self.report.renamed[printable(loaded.place.source)] = printable(loaded.place.name)
        return predictions

    @cached_property
    def _weights(self) -> str:
        return weights_digest(self.model)

    def _problem_of(self, loaded: LoadedItem, error: Exception) -> Problem:
        """Describe the network's error with an image; raises ``DeviceError`` if it is the device's."""
        check_device(self.model.device, error)
        return problem_of(loaded.item.source, error, "the network failed on it")

    def _smoothed(self, predictions: Iterator[Prediction]) -> Iterator[Prediction]:
        """Average the frames of each video; those whose results are there were needed for others, and are counted."""
        for window in windows(predictions, self.smooth):
            middle = window[self.smooth]
            assert middle
            loaded, result = middle
            if loaded.is_done:
                self.report.skip(loaded.finished)
                continue
            name = loaded.item.name
            frames = [other[1].segmentation if other and other[0].item.name == name else None for other in window]
            try:
                with self.report.network.timing("work"):
                    segmentation = _ready(averaged(frames))
            except Exception as error:  # of any device
                self.report.problems.append(self._problem_of(loaded, error))
            else:
                yield loaded, replace(result, segmentation=segmentation)

    def _write(self, prediction: Prediction) -> tuple[Finished, Result] | Problem:
        """Write the results of an image, and record that they are complete."""
        loaded, result = prediction
        try:
            write_result(result, self.formats, self.manifest.folder)
            self.manifest.add(loaded.place, own_files(result.name, self.formats, self.manifest.folder))
            _ = result.areas  # kept: counted here, not while the network waits
            return loaded.finished, result
        except OSError as error:
            what = f"cannot write the results of {result.source} to {self.manifest.folder}: {error}"
            if error.errno not in ABOUT_A_NAME:
                raise OutputError(what) from error
            return Problem(result.source, printable(what))
        except Exception as error:  # of any library that draws or encodes
            return problem_of(result.source, error, "the results cannot be written")


def _ready(segmentation: Segmentation) -> Segmentation:
    """Make the labels here, since two threads that compute hinder each other, and leave the device to what comes."""
    _ = segmentation.labels
    return segmentation.cpu()
