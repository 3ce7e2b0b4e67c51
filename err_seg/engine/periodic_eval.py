"""Evaluation while a run trains, and the best weights so far."""

import copy
import logging
import math
import statistics
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor, nn

from err_seg.config import Config
from err_seg.evaluation import BenchmarkResult
from err_seg.evaluation.benchmarks import evaluate, open_benchmarks
from err_seg.evaluation.metrics import SUMMARY_METRICS
from err_seg.models.checkpoint import save_weights
from err_seg.prediction.model import ERRSeg
from err_seg.utils.processes import is_main_process

logger = logging.getLogger(__name__)


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


class BestWeights:
    """Keeps the best weights of a run, in ``model_best.safetensors``.

    Args:
        cfg: the configuration.

    Attributes:
        mean: the highest mean of ``TEST.BEST_METRIC`` over the benchmarks so far; ``None`` before the first.
    """

    def __init__(self, cfg: Config):
        self.file, self.metric = Path(cfg.OUTPUT_DIR) / "model_best.safetensors", cfg.TEST.BEST_METRIC
        self.config = cfg.dump()
        self.mean: float | None = None

    def offer(
        self, weights: nn.Module | dict[str, Tensor], iterations: int, results: Sequence[BenchmarkResult]
    ) -> None:
        """Write weights, in the main process, if their results are better than all earlier ones."""
        mean = mean_metric(results, self.metric)
        if not mean > (-math.inf if self.mean is None else self.mean):
            return
        self.mean = mean
        if is_main_process():
            save_weights(weights, self.file, {"iteration": iterations, "config": self.config, self.metric: mean})
            logger.info("the best weights so far, mean %s %.4f: %s", self.metric, mean, self.file)


class PeriodicEvaluation:
    """Evaluates a run's weights on ``DATASETS.TEST``, in a separate network.

    The training network keeps its mode, gradients, random numbers and place in the data.

    Args:
        cfg: the configuration.
        model: the network, not yet divided over processes; it is copied to the CPU.

    Raises:
        DatasetError: a benchmark is unknown or not on disk.
    """

    def __init__(self, cfg: Config, model: ERRSeg):
        open_benchmarks(cfg)
        self.cfg, self.device = cfg, model.device
        self.model = copy.deepcopy(model).cpu().requires_grad_(False)

    def __call__(self, weights: dict[str, Tensor], iterations: int) -> list[BenchmarkResult]:
        """Evaluate the weights after ``iterations`` iterations; all processes must call this."""
        self.model.load_state_dict(weights)
        results = evaluate(evaluation_cfg(self.cfg, iterations), self.model.to(self.device))
        self.model.cpu()
        return results
