"""The configuration and the metrics of evaluations while a run trains."""

import math
import statistics
from collections.abc import Sequence
from pathlib import Path

from err_seg.config import Config
from err_seg.evaluation import BenchmarkResult
from err_seg.evaluation.metrics import SUMMARY_METRICS


def evaluation_cfg(cfg: Config, iterations: int) -> Config:
    """Return the configuration for evaluating the weights after ``iterations``, in a separate folder."""
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.WEIGHTS = f"iteration {iterations} of {cfg.OUTPUT_DIR}"
    cfg.OUTPUT_DIR = str(Path(cfg.OUTPUT_DIR) / "evaluations" / f"iter_{iterations:07d}")
    return cfg


def scalar_metrics(results: Sequence[BenchmarkResult]) -> dict[str, float]:
    """Name the metrics as detectron2's ``metrics.json`` does: "sem_seg/mIoU".

    With several benchmarks, "<benchmark>/" is put before the name. Metrics of single classes, and undefined ones, are
    left out.
    """
    return {
        ("" if len(results) == 1 else f"{result.benchmark}/") + f"sem_seg/{name}": value
        for result in results
        for name, value in result.metrics.items()
        if ("-" not in name or name in SUMMARY_METRICS) and math.isfinite(value)
    }


def mean_metric(results: Sequence[BenchmarkResult], name: str) -> float:
    """Average one metric over benchmarks; NaN if a benchmark lacks it."""
    return statistics.fmean(result.metrics[name] for result in results)
