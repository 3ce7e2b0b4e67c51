"""The loop over pictures: read ahead, predict in batches, write beside, and go on after what cannot be read."""

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from err_seg.data import ImageReadError
from err_seg.inference.attention import record_attention
from err_seg.inference.formats import Result, result_paths, write_result
from err_seg.inference.inputs import Item, Problem
from err_seg.inference.output import OutputError, is_done
from err_seg.inference.words import NOTHING, Words
from err_seg.modeling.err_seg import ERRSeg

READERS = WRITERS = 2


@dataclass
class Report:
    """What a run did.

    Attributes:
        done: pictures whose results were written, and ``skipped``: whose results were there.
        pixels: of the pictures done, by class name; :attr:`nothing` are those of no class.
        pictures: in how many of the pictures done a class occurs.
        problems: what could not be used, in order.
    """

    done: int = 0
    skipped: int = 0
    nothing: int = 0
    pixels: Counter[str] = field(default_factory=Counter)
    pictures: Counter[str] = field(default_factory=Counter)
    problems: list[Problem] = field(default_factory=list)

    def add(self, result: Result) -> None:
        """Count a picture's pixels."""
        self.done += 1
        labels, counts = np.unique(result.labels, return_counts=True)
        for label, count in zip(labels.tolist(), counts.tolist(), strict=True):
            if label == NOTHING:
                self.nothing += count
            else:
                self.pixels[result.words.classes[label]] += count
                self.pictures[result.words.classes[label]] += 1

    def merge(self, other: "Report") -> None:
        """Add what another process did."""
        self.done += other.done
        self.skipped += other.skipped
        self.nothing += other.nothing
        self.pixels.update(other.pixels)
        self.pictures.update(other.pictures)
        self.problems += other.problems


def run(
    model: ERRSeg,
    items: Iterable[Item | Problem],
    words: Words,
    folder: Path,
    *,
    formats: Sequence[str] = ("overlay",),
    batch_size: int = 1,
    num_kept: int | None = None,
    point: tuple[int, int] | None = None,
    since: float = float("inf"),
    total: int | None = None,
) -> Report:
    """Predict pictures and write their results; pictures that cannot be read are reported and left out.

    Args:
        model: see :func:`err_seg.load`.
        items: see :func:`~err_seg.inference.iterate_items`.
        words: the classes.
        folder: of the results.
        formats: of :data:`~err_seg.inference.FORMATS`.
        batch_size: pictures that go through the network together.
        num_kept: K, instead of the model's own.
        point: (x, y), the pixel that attention is shown for.
        since: pictures are skipped whose results are there and not older than this time; see ``claim_output``.
        total: number of items for the progress bar, where it is known.

    Raises:
        OutputError: a result cannot be written; all earlier ones are complete.
        VocabularyError: words that the network cannot read.
    """
    report = Report()
    model.embed_vocabulary(words.vocabulary)  # words that cannot be used are found before anything is read
    progress = tqdm(total=total, unit="picture", disable=None)
    with ThreadPoolExecutor(READERS) as readers, ThreadPoolExecutor(WRITERS) as writers, progress:
        todo = _unfinished(items, formats, folder, since, report, progress)
        written: list[Future[Result]] = []
        try:
            for batch in _batches(_read_ahead(todo, readers, report, progress, 2 * batch_size), batch_size):
                for result in _predict(model, batch, words, num_kept, "attention" in formats, point, report):
                    written.append(writers.submit(_write, result, formats, folder))
                while len(written) > WRITERS + batch_size:
                    report.add(written.pop(0).result())
                progress.update(len(batch))
            for future in written:
                report.add(future.result())
        except BaseException:
            writers.shutdown(cancel_futures=True)
            readers.shutdown(cancel_futures=True)
            raise
    return report


def _unfinished(
    items: Iterable[Item | Problem], formats: Sequence[str], folder: Path, since: float, report: Report, progress: tqdm
) -> Iterator[Item]:
    """Yield the items that are still to do; count the others."""
    for item in items:
        if isinstance(item, Problem):
            report.problems.append(item)
        elif is_done(result_paths(item.name, formats, folder), since):
            report.skipped += 1
            progress.update()
        else:
            yield item


def _read_ahead(
    items: Iterator[Item], readers: ThreadPoolExecutor, report: Report, progress: tqdm, depth: int
) -> Iterator[tuple[Item, np.ndarray]]:
    """Read items in threads, some ahead of their use; pictures that cannot be read become problems."""
    waiting: list[tuple[Item, Future[np.ndarray]]] = []
    while True:
        waiting += [(item, readers.submit(item.read)) for item in itertools.islice(items, depth - len(waiting))]
        if not waiting:
            return
        item, future = waiting.pop(0)
        try:
            yield item, future.result()
        except (ImageReadError, MemoryError) as error:
            report.problems.append(Problem(item.source, str(error) or f"{item.source}: too large for the memory"))
            progress.update()


def _batches(pairs: Iterator[tuple[Item, np.ndarray]], size: int) -> Iterator[list[tuple[Item, np.ndarray]]]:
    while batch := list(itertools.islice(pairs, size)):
        yield batch


def _predict(
    model: ERRSeg,
    batch: list[tuple[Item, np.ndarray]],
    words: Words,
    num_kept: int | None,
    with_attention: bool,
    point: tuple[int, int] | None,
    report: Report,
) -> list[Result]:
    """Predict a batch; where that fails, each picture of it alone, so that one cannot take others with it."""
    pictures = [picture for _, picture in batch]
    try:
        predictions = model.predict(pictures, words.vocabulary, num_kept=num_kept, batch_size=len(batch))
        results = []
        for (item, picture), prediction in zip(batch, predictions, strict=True):
            attention = record_attention(model, picture, words.vocabulary, num_kept) if with_attention else None
            labels = words.labels(prediction)
            # the writers' queue shall not fill the device's memory
            results.append(Result(item.name, item.source, picture, prediction.cpu(), labels, words, attention, point))
        return results
    except (RuntimeError, MemoryError) as error:  # torch's out-of-memory errors are RuntimeErrors
        if model.device.type == "cuda":
            torch.cuda.empty_cache()
        if len(batch) == 1:
            source, reason = batch[0][0].source, next(iter(str(error).splitlines()), type(error).__name__)
            report.problems.append(Problem(source, f"{source}: the network failed on it: {reason}"))
            return []
    singly = ([pair] for pair in batch)
    return [r for one in singly for r in _predict(model, one, words, num_kept, with_attention, point, report)]


def _write(result: Result, formats: Sequence[str], folder: Path) -> Result:
    try:
        write_result(result, formats, folder)
    except OSError as error:
        raise OutputError(f"cannot write the results of {result.source} to {folder}: {error}") from error
    return result
