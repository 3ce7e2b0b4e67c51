"""Training and evaluation: optimizer and schedule, the training loop, benchmarks."""

from err_seg.engine.optimizer import build_optimizer, build_schedule, parameter_groups
from err_seg.engine.trainer import train
from err_seg.evaluation.benchmarks import evaluate, open_benchmarks
from err_seg.utils.errors import EvaluationError, RunError, TrainingError, TrainingInterrupted

__all__ = [
    "EvaluationError",
    "RunError",
    "TrainingError",
    "TrainingInterrupted",
    "build_optimizer",
    "build_schedule",
    "evaluate",
    "open_benchmarks",
    "parameter_groups",
    "train",
]
