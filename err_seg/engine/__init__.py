"""Training and evaluation: optimizer and schedule, the training loop, benchmarks."""

from err_seg.engine.evaluate import evaluate
from err_seg.engine.optimizer import build_optimizer, build_schedule, parameter_groups
from err_seg.engine.train import TrainingError, train

__all__ = ["TrainingError", "build_optimizer", "build_schedule", "evaluate", "parameter_groups", "train"]
