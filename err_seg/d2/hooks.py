"""Makes a run of detectron2's trainer save and report what a run of the plain engine does."""

import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.utils import set_seed
from detectron2.engine import HookBase
from detectron2.utils import comm
from torch import Tensor

from err_seg.config import Config
from err_seg.d2.weights import readable_weights
from err_seg.data import Batch
from err_seg.data.loader import seed_of
from err_seg.engine.base_trainer import BaseTrainer
from err_seg.engine.checkpoints import TrainingState
from err_seg.engine.loss_monitor import DeferredScalars, Iteration
from err_seg.engine.periodic_eval import evaluation_cfg, predict_batch, reports_test
from err_seg.evaluation import BenchmarkResult
from err_seg.evaluation.results import load_results
from err_seg.models.checkpoint import checked_sha256
from err_seg.utils.errors import TrainingError, TrainingInterrupted
from err_seg.utils.fingerprint import WeightsSource
from err_seg.utils.processes import one_writer, wait_for_all

OF_DETECTRON2 = ("time", "lr", "rank_data_time")
"""Scalars of its own trainer and hooks, which the log has already or does not show."""


class Stopped(BaseException):
    """Carries a ``TrainingInterrupted`` through detectron2's loop, which would print an exception's stack trace."""


class TrainerHook(BaseTrainer, HookBase):
    """A hook that does before and after detectron2's steps what the plain engine does before and after its own.

    It takes the plain engine's configuration, and the model without what it was wrapped in.

    Attributes:
        state: what the run starts from, without the optimizer's state, which is large; ``None`` before that is known.
    """

    def __init__(self, cfg: Config, meta_arch: Any):
        super().__init__(cfg, meta_arch.network)
        self.meta_arch = meta_arch
        self.state: TrainingState | None = None

    def begin(self, *, resume: bool) -> TrainingState:
        """Find the state to start from, and restore all of it but the place in the data; be the one writer from now."""
        with ExitStack() as writing:
            writing.enter_context(one_writer(self.output, TrainingError))
            self.state = self.prepare(resume=resume)
            self.restore(self.state, self.trainer.optimizer, getattr(self.trainer._trainer, "grad_scaler", None))
            self._writing = writing.pop_all()
        self.state.optimizer = {}
        return self.state

    def before_train(self) -> None:
        """Open the files."""
        assert self.state is not None
        self.open(self.state)

    def before_step(self) -> None:
        """Seed the random numbers from the iteration's place in the run alone; start the clock."""
        set_seed(seed_of(self.cfg.SEED, self.iteration, comm.get_rank()) % 2**32)
        self._start = time.perf_counter()

    def after_step(self) -> None:
        """Log the iteration; draw, evaluate, save and finish, each if it is due."""
        if self.log is not None:
            storage, seconds = self.trainer.storage, time.perf_counter() - self._start
            values = {name: value for name, (value, when) in storage.latest().items() if when == storage.iter}
            loss, data_seconds = torch.tensor(values["total_loss"]), values.pop("data_time")
            scalars = {"signal": 0.0, **{name: x for name, x in values.items() if name not in OF_DETECTRON2}}
            if self.scaler.is_enabled():
                scalars["loss_scale"] = self.scaler.get_scale()
            numbers = DeferredScalars({name: torch.tensor(x, dtype=torch.float64) for name, x in scalars.items()})
            lr = max(group["lr"] for group in self.optimizer.param_groups)
            self.monitor.pending = Iteration(self.iteration, [], loss, numbers, lr, seconds, data_seconds)
            self.monitor.check()
        self.iteration += 1
        self.pictures += self.cfg.SOLVER.IMS_PER_BATCH
        try:
            self.after_iteration(max(comm.all_gather(self.trainer.stopping.signum)))
        except TrainingInterrupted as stop:
            raise Stopped(stop) from None

    def after_train(self) -> None:
        """Close the files."""
        with self._writing:
            self.close()

    def label_latest(self) -> tuple[Batch, np.ndarray, Sequence[str]]:
        """Label the first images of the last batch."""
        batch, names = self.meta_arch.latest, self.meta_arch.train_dataset.vocabulary
        text = self.model.embed_vocabulary(names)
        return batch, predict_batch(self.model, self.model, batch, text, self.cfg), names

    def run_evaluation(self, weights: dict[str, Tensor]) -> list[BenchmarkResult]:
        """Evaluate the model, which has these weights, with the trainer's own evaluation."""
        cfg = evaluation_cfg(self.trainer.cfg, self.iteration)
        if reports_test(self.cfg, self.iteration):
            file = Path(cfg.MODEL.WEIGHTS)
            vars(self.model)["source"] = WeightsSource(str(file), checked_sha256(file, None))
        cfg.MODEL.WEIGHTS = readable_weights(cfg.MODEL.WEIGHTS)
        self.trainer.test(cfg, self.meta_arch)
        wait_for_all()
        return load_results(Path(cfg.OUTPUT_DIR) / "results.json")
