"""ERR-Seg's metrics and result files from detectron2's evaluation loop."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm

from err_seg.d2.catalog import open_pairs
from err_seg.data.ground_truth import check_ground_truth
from err_seg.evaluation import BenchmarkResult
from err_seg.evaluation.benchmarks import new_counts, save_benchmarks
from err_seg.evaluation.calibration import confidence_of
from err_seg.evaluation.metrics import image_metrics
from err_seg.evaluation.results import PredictionFiles, save_image_counts
from err_seg.utils import heartbeat
from err_seg.utils.processes import is_main_process, wait_for_all


class ERRSegEvaluator(DatasetEvaluator):
    """Both formulas of mIoU (``mIoU``, and ``mIoU-v0.6`` of detectron2's last release) and the plain engine's files.

    Reads ``file_name`` of the inputs and ``sem_seg`` of the outputs, of which it takes ``argmax(dim=0)``: the class of
    every pixel of the image as it is on disk.

    Args:
        dataset_name: a registered name.
        distributed: add up the counts of all processes.
        output_dir: where ``results.json``, ``results.csv`` and ``inference/<name>/classes.csv`` go; ``None``: nowhere.
        root: as ``DATASETS.ROOT``; ``None``: that which the name was registered with.
        boundary_iou: also compute boundary IoU.
        metrics: names of further metrics to compute, as ``TEST.METRICS``.
        confidence: as ``TEST.CALIBRATION``; outputs must then have ``segmentation``, as those of ``ERRSeg`` do.
        save: files of the predictions, as ``TEST.SAVE``; they need ``output_dir``.
        settings: what the metrics depend on, stored with them.
        num_images: as ``TEST.NUM_IMAGES``; give it to the loader as well.
        write_results: off where the caller writes the result files, of all benchmarks together.

    Attributes:
        result: the result of the last :meth:`evaluate`.

    Raises:
        DatasetError: the data set is unknown or not on disk, or holds nothing that can be measured.
    """

    def __init__(
        self,
        dataset_name: str,
        distributed: bool = True,
        output_dir: str | Path | None = None,
        *,
        root: str | None = None,
        boundary_iou: bool = False,
        metrics: Sequence[str] = (),
        confidence: bool = False,
        save: Sequence[str] = (),
        settings: Mapping[str, Any] | None = None,
        num_images: int = 0,
        write_results: bool = True,
    ):
        self.pairs = open_pairs(dataset_name, root).spread(num_images)
        check_ground_truth(self.pairs)
        self.spec, self.settings = self.pairs.spec, {**(settings or {}), **self.pairs.selection}
        self.output = None if output_dir is None else Path(output_dir)
        self.distributed, self.write_results = distributed, write_results
        self.counts_confidence = confidence
        self._counted: dict[str, Any] = {"boundary_iou": boundary_iou, "metrics": metrics, "confidence": confidence}
        self.result: BenchmarkResult | None = None
        if save and self.output is None:
            raise ValueError("files of the predictions (save) need an output_dir")
        folder = (self.output or Path()) / "inference" / self.spec.name
        self._files = PredictionFiles(folder, save, self.spec, self.pairs.names)
        self._index = {self.pairs.paths(index)[0]: index for index in range(len(self.pairs))}
        self.reset()

    def reset(self) -> None:
        """Forget all counts."""
        self._counts = new_counts(self.spec, "cpu", **self._counted)
        self._kept = 0
        self._of_images: dict[int, np.ndarray] = {}  # (3, N) pixels by the image's index

    def process(self, inputs: Sequence[Mapping[str, Any]], outputs: Sequence[Mapping[str, Any]]) -> None:
        """Count images."""
        heartbeat.check()
        for given, output in zip(inputs, outputs, strict=True):
            if self.counts_confidence and "segmentation" not in output:
                raise ValueError('TEST.CALIBRATION needs outputs with "segmentation", as ERRSeg gives; switch it off')
            labels = output["sem_seg"].argmax(dim=0).cpu()
            index = self._index[given["file_name"]]
            confidence = confidence_of(output["segmentation"]) if self.counts_confidence else None
            before = self._counts.class_pixels
            self._counts.update(labels, torch.from_numpy(self.pairs.load_label(index)), confidence)
            self._of_images[index] = (self._counts.class_pixels - before).numpy().astype(np.int32)
            self._kept += len(output["segmentation"].kept) if "segmentation" in output else 0
            self._files.save(index, given["file_name"], labels.numpy())

    def evaluate(self) -> dict[str, dict[str, float]] | None:
        """Compute the metrics in percent, NaN where undefined, and write the files.

        Returns ``{"sem_seg": metrics}``; ``None`` in all processes but the first.
        """
        if self.distributed:
            wait_for_all()  # may take hours where shares are unequal; what follows does not
            self._counts.all_reduce()
            shares, kept = zip(*comm.all_gather((self._of_images, self._kept)), strict=True)
            self._of_images, self._kept = {i: counts for share in shares for i, counts in share.items()}, sum(kept)
        if not is_main_process():
            return None
        self._files.finish()
        name, classes, seen = self.spec.name, self.spec.evaluated_classes, self.spec.seen_and_unseen
        done = sorted(self._of_images)
        result = BenchmarkResult.from_counts(name, self._counts, classes, len(done), self.settings, seen)
        counts = np.stack([self._of_images[index] for index in done])
        metrics, mean_kept = result.metrics | image_metrics(counts), self._kept / len(done) if self._kept else None
        self.result = replace(result, metrics=metrics, mean_kept=mean_kept)
        if self.output is not None:
            save_image_counts(self._files.folder, [self.pairs.names[index] for index in done], counts)
        if self.output is not None and self.write_results:
            save_benchmarks([self.result], self.output)
        return {"sem_seg": self.result.metrics}
