"""The progress of an evaluation, kept on disk so that it can continue after a kill.

Each process keeps a file ``partial-<rank>.json`` in the benchmark's folder. It holds the images that the process has
counted, with the number of classes kept and the pixels of each class, and the counts. A fingerprint of weights,
settings and images ensures that a file is used only for the evaluation that it belongs to.
"""

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from err_seg.evaluation import ConfusionMatrix
from err_seg.utils.files import write_text
from err_seg.utils.processes import process_share, sum_over_processes, wait_for_all

logger = logging.getLogger(__name__)


class ImageRecord(NamedTuple):
    """What is kept of an image: how many classes were; (class, tp, gt, predicted pixels) of each that has any."""

    kept: int
    classes: list[list[int]]

    @classmethod
    def of(cls, kept: int, class_pixels: Tensor) -> "ImageRecord":
        """Record (3, N) pixels that are right, in the ground truth, and predicted."""
        present = class_pixels.any(dim=0).nonzero()
        return cls(kept, torch.cat([present, class_pixels.t()[present[:, 0]]], dim=1).tolist())


class EvaluationProgress:
    """The images of one benchmark that are done and their counts, over all processes.

    Attributes:
        done: indices of the images that earlier processes did.
        saved: how many images this process's file holds.
    """

    def __init__(self, folder: Path, fingerprint: str):
        self.folder = folder
        self.fingerprint = fingerprint
        self.rank, self.processes = process_share()
        self.done: set[int] = set()
        self.saved = 0
        self._own: dict[int, ImageRecord] = {}
        self._is_whole = True

    def restore(self, counts: ConfusionMatrix) -> None:
        """Read what killed processes left: ``done`` in all processes, and the counts in the first one."""
        files = sorted(self.folder.glob("partial-*.json"))
        states = [state for file in files if (state := self._read(file))]
        records: dict[int, ImageRecord] = {}
        # a file whose images are also in a larger one had been merged into it before a kill
        for state in sorted(states, key=lambda state: len(state["done"]), reverse=True):
            if self.done.isdisjoint(state["done"]):
                self.done.update(state["done"])
                records |= _records(state)
                if self.rank == 0:
                    counts.merge(type(counts).from_state(state["counts"]))
        wait_for_all()  # until all have read the files
        if self.rank == 0:
            self._own = records
            if self.done:
                logger.info("going on after %d images that an interrupted evaluation has done", len(self.done))
            self.save(counts)
            for file in files:
                if file != self._file:
                    file.unlink(missing_ok=True)
        wait_for_all()

    def mean_kept(self, device: torch.device) -> float:
        """Average the number of classes kept over the images of all processes, which communicate through ``device``."""
        total = torch.tensor([sum(record.kept for record in self._own.values()), len(self._own)], device=device)
        kept, images = sum_over_processes(total).tolist()
        return kept / images

    def image_counts(self, images: int, num_classes: int) -> NDArray[np.int32]:
        """Read the pixels of all images of all processes, when these are done and saved.

        Returns:
            (I, 3, N): of each class those that are right, in the ground truth, and predicted.
        """
        counts = np.zeros((images, 3, num_classes), np.int32)
        for state in filter(None, map(self._read, self.folder.glob("partial-*.json"))):
            for image, record in _records(state).items():
                index, *pixels = np.array(record.classes, np.int32).reshape(-1, 4).T
                counts[image, :, index] = np.stack(pixels, axis=1)
        return counts

    @property
    def unsaved(self) -> int:
        """How many images this process has counted since it saved."""
        return len(self._own) - self.saved

    @contextmanager
    def counting(self) -> Iterator[dict[int, ImageRecord]]:
        """Record the images that are counted in the block, which it puts into what is yielded, by index.

        If the block fails, counts and images no longer agree.
        """
        self._is_whole = False
        images: dict[int, ImageRecord] = {}
        yield images
        self._own.update(images)
        self._is_whole = True

    @contextmanager
    def kept(self, counts: ConfusionMatrix) -> Iterator[None]:
        """Save what was done in the block, even if an error ends it, unless that happens while counting."""
        try:
            yield
        except Exception:
            if self._is_whole:
                with suppress(OSError):
                    self.save(counts)
            raise
        self.save(counts)

    def save(self, counts: ConfusionMatrix) -> None:
        """Save what this process has done."""
        done = sorted(self._own)
        images = {"done": done, "records": [self._own[image] for image in done]}
        write_text(self._file, json.dumps({"fingerprint": self.fingerprint, **images, "counts": counts.state()}))
        self.saved = len(self._own)

    def remove(self) -> None:
        """Remove this process's file, once the results are written."""
        self._file.unlink(missing_ok=True)

    @property
    def _file(self) -> Path:
        return self.folder / f"partial-{self.rank}.json"

    def _read(self, file: Path) -> dict[str, Any] | None:
        try:
            state = json.loads(file.read_text(encoding="utf-8"))
            return state if state["fingerprint"] == self.fingerprint and "records" in state else None
        except (OSError, ValueError, KeyError, TypeError):
            return None


def _records(state: dict[str, Any]) -> dict[int, ImageRecord]:
    return {image: ImageRecord(*record) for image, record in zip(state["done"], state["records"], strict=True)}
