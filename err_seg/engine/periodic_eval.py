"""Looking at a network while it trains: settings and metrics of evaluations, images of predictions."""

import logging
import math
import statistics
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from err_seg.config import Config, ConfigError
from err_seg.data import Batch, DatasetSpec
from err_seg.evaluation import BenchmarkResult
from err_seg.evaluation.benchmarks import new_counts
from err_seg.evaluation.metrics import SEEN_METRICS, SUMMARY_METRICS
from err_seg.modeling.layers import resize
from err_seg.prediction.model import ERRSeg
from err_seg.utils.messages import did_you_mean, listed
from err_seg.utils.processes import is_main_process
from err_seg.visualization.grid import sheet
from err_seg.visualization.legend import add_legend
from err_seg.visualization.overlay import legend_entries, overlay

logger = logging.getLogger(__name__)

FINAL_WEIGHTS = "model_final.safetensors"


def evaluation_cfg(cfg: Config, iterations: int) -> Config:
    """Return the configuration for an evaluation after ``iterations``: on ``DATASETS.VAL``, in a separate folder.

    Where ``DATASETS.VAL`` is empty, it is on ``DATASETS.TEST``; after the last iteration it is then the evaluation of
    the finished run.
    """
    cfg = cfg.clone()
    cfg.defrost()
    if reports_test(cfg, iterations):
        cfg.MODEL.WEIGHTS = str(Path(cfg.OUTPUT_DIR) / FINAL_WEIGHTS)
        return cfg
    cfg.DATASETS.TEST = cfg.DATASETS.VAL or cfg.DATASETS.TEST
    cfg.MODEL.WEIGHTS = f"iteration {iterations} of {cfg.OUTPUT_DIR}"
    cfg.OUTPUT_DIR = str(Path(cfg.OUTPUT_DIR) / "evaluations" / f"iter_{iterations:07d}")
    return cfg


def reports_test(cfg: Config, iterations: int) -> bool:
    """Whether the evaluation after so many ``iterations`` is that of the finished run on ``DATASETS.TEST``."""
    return iterations == cfg.SOLVER.MAX_ITER and not cfg.DATASETS.VAL


def check_selection(cfg: Config, benchmarks: Sequence[DatasetSpec]) -> None:
    """Check by which metric, on which ``benchmarks``, the best weights are chosen.

    Raises:
        ConfigError: their results will not have ``TEST.BEST_METRIC``.
    """
    for spec in benchmarks:
        counts = new_counts(spec, "cpu", boundary_iou=cfg.TEST.BOUNDARY_IOU, metrics=cfg.TEST.METRICS)
        counts.matrix.fill_diagonal_(1)
        classes, groups = spec.evaluated_classes, spec.seen_and_unseen
        known = BenchmarkResult.from_counts(spec.name, counts, classes, 0, None, groups).metrics
        if (name := cfg.TEST.BEST_METRIC) not in known:
            hint = did_you_mean(name, known, f"there are {listed(known)}")
            raise ConfigError(f"TEST.BEST_METRIC: {spec.name} has no metric {name!r}; {hint}")
    if is_main_process() and (both := [name for name in cfg.DATASETS.TEST if name in (cfg.DATASETS.VAL or [name])]):
        logger.warning(
            "model_best.safetensors is chosen on what is reported (%s), so its result is too good; name other data in "
            "DATASETS.VAL",
            listed(both),
        )


def scalar_metrics(results: Sequence[BenchmarkResult]) -> dict[str, float]:
    """Name the metrics as detectron2's ``metrics.json`` does: "sem_seg/mIoU".

    With several benchmarks, "<benchmark>/" is put before the name. Metrics of single classes, and undefined ones, are
    left out.
    """
    return {
        ("" if len(results) == 1 else f"{result.benchmark}/") + f"sem_seg/{name}": value
        for result in results
        for name, value in result.metrics.items()
        if ("-" not in name or name in SUMMARY_METRICS + SEEN_METRICS) and math.isfinite(value)
    }


def mean_metric(results: Sequence[BenchmarkResult], name: str) -> float:
    """Average one metric over benchmarks; NaN if a benchmark lacks it."""
    return statistics.fmean(result.metrics[name] for result in results)


IMAGES = 4


@torch.no_grad()
def predict_batch(model: ERRSeg, network: nn.Module, batch: Batch, text: Tensor, cfg: Config) -> np.ndarray:
    """Label the first images of a training batch as evaluation would, at the crop's size: (B, S, S) int64."""
    images = model.preprocess(batch.images[:IMAGES], cfg.INPUT.CROP_SIZE)
    network.eval()
    try:
        prediction = network(images, text)
    finally:
        network.train()
    best = resize(prediction.logits.float(), batch.labels.shape[-2:]).argmax(dim=1)  # B×S×S, places in ``kept``
    return prediction.kept.gather(1, best.flatten(1)).view_as(best).cpu().numpy()


def compare(batch: Batch, predictions: np.ndarray, names: Sequence[str]) -> Image.Image:
    """Lay out image | ground truth | prediction, one row per image, label maps over the image, with a legend.

    ``predictions`` are the (B, S, S) class indices of the batch's first B images.
    """
    count = len(predictions)
    images = batch.images[:count].byte().permute(0, 2, 3, 1).numpy()  # B×S×S×3
    labels = batch.labels[:count].long().numpy()
    panels = []
    for image, *maps in zip(images, labels, predictions, strict=True):
        panels += [Image.fromarray(image), *(overlay(image, shown, names, legend=False) for shown in maps)]
    entries = legend_entries(np.stack([labels, predictions]), names)
    return add_legend(sheet(panels, 3, panels[0].size), entries)
