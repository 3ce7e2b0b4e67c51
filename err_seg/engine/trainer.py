"""The plain engine: the training loop, and one process's part in it."""

import copy
import logging
import signal
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
import torch
from accelerate.utils import set_seed
from torch import Tensor
from torch.distributed.fsdp import FSDPModule

from err_seg.config import Config
from err_seg.data import Batch, SegmentationPairs, get_dataset
from err_seg.data.ground_truth import check_ground_truth
from err_seg.data.loader import seed_of
from err_seg.engine.base_trainer import BaseTrainer
from err_seg.engine.loss_monitor import DeferredScalars, Iteration
from err_seg.engine.optimizer import WeightAverage, set_learning_rates
from err_seg.engine.parallel import build_accelerator, distribute, gradient_sync, images_at_a_time
from err_seg.engine.periodic_eval import check_selection, evaluation_cfg, predict_batch, reports_test
from err_seg.engine.run_setup import check_settings, open_data, run_context
from err_seg.engine.step import Teacher, build_loss_terms, mean_pixels, training_loss, vocabulary_input
from err_seg.evaluation import BenchmarkResult
from err_seg.evaluation.benchmarks import evaluate, open_benchmarks
from err_seg.models.checkpoint import load_weights
from err_seg.prediction.model import ERRSeg
from err_seg.utils.device import resolve_precision

logger = logging.getLogger(__name__)


def train(cfg: Config, model: ERRSeg, *, resume: bool = False) -> list[BenchmarkResult] | None:
    """Train the model on ``DATASETS.TRAIN`` for ``SOLVER.MAX_ITER`` iterations.

    Writes to ``OUTPUT_DIR``: ``metrics.json`` and the like (:mod:`err_seg.engine.run_log`), checkpoints every
    ``SOLVER.CHECKPOINT_PERIOD`` iterations and at the end (:mod:`err_seg.engine.checkpoints`), images of predictions
    every ``VIS_PERIOD`` (:mod:`err_seg.engine.periodic_eval`), and ``model_final.safetensors``. Every
    ``TEST.EVAL_PERIOD`` and at the end it writes results on ``DATASETS.VAL``, in ``evaluations``, and the best weights
    so far, as ``model_best.safetensors``. Without ``DATASETS.VAL`` this is done on ``DATASETS.TEST``; the results at
    the end are then those that :func:`err_seg.engine.evaluate` would write.

    If ``torch.distributed`` is initialised, all its processes must call this. With any number of processes, a global
    batch has the same images and gives the same step. The global random state is set in every iteration.

    Args:
        model: the network, on its device; it is trained in place and left in evaluation mode. (With ``SOLVER.PARALLEL``
            "fsdp", each process is left with only a part of it: load ``model_final.safetensors`` into a new network.)
        resume: continue from the newest checkpoint in ``OUTPUT_DIR``, if there is one.

    Returns:
        The results on ``DATASETS.TEST`` at the end, if the run evaluated on them; else ``None``.

    Raises:
        ConfigError: the settings do not allow training; names the key.
        TrainingError: the output folder cannot be used, the loss or the weights are no longer finite numbers, a file
            cannot be written, a pair cannot be read, or a loader process was killed; says what to resume from.
        TrainingInterrupted: a signal of ``SOLVER.STOP_SIGNALS`` came; a checkpoint was written.
    """
    check_settings(cfg)
    if cfg.TEST.EVAL_PERIOD:
        check_selection(cfg, [pairs.spec for pairs in open_benchmarks(evaluation_cfg(cfg, 0))])
    with run_context(cfg, model) as stop, closing(PlainTrainer(cfg, model, resume=resume)) as trainer:
        while trainer.iteration < cfg.SOLVER.MAX_ITER:
            trainer.after_iteration(trainer.step(stop.signum))
        return trainer.reported


class PlainTrainer(BaseTrainer):
    """A training run that can be stepped, shown, saved and finished; arguments and errors as for :func:`train`."""

    def __init__(self, cfg: Config, model: ERRSeg, *, resume: bool):
        super().__init__(cfg, model)
        self.accelerator = build_accelerator(cfg, model.device)
        self.processes = self.accelerator.num_processes
        self.spec = get_dataset(cfg.DATASETS.TRAIN[0]).for_training(cfg.MODEL.LOSS.IGNORED_ARE_NEGATIVES)
        pairs = SegmentationPairs(self.spec, cfg.DATASETS.ROOT)
        check_ground_truth(pairs, trains=True)
        if cfg.TEST.EVAL_PERIOD:
            self.evaluated = copy.deepcopy(model).cpu().requires_grad_(False)
        if cfg.MODEL.DISTILL.WEIGHTS:
            self.teacher = Teacher(cfg.MODEL.DISTILL.WEIGHTS, self.spec.vocabulary, model.device)
        state = self.prepare(resume=resume)
        if self.teacher is not None and state.teacher not in ("", self.teacher.digest):
            weights = cfg.MODEL.DISTILL.WEIGHTS
            logger.warning("the teacher's weights changed since the checkpoint: MODEL.DISTILL.WEIGHTS %s", weights)

        self.loss_terms = build_loss_terms(cfg)
        self.text = vocabulary_input(model, self.spec.vocabulary)
        self.network, optimizer = distribute(cfg, self.accelerator, model)
        self.average = WeightAverage(model, cfg.SOLVER.EMA.DECAY) if cfg.SOLVER.EMA.ENABLED else None
        self.restore(state, optimizer, self.accelerator.scaler)
        self.network.train()
        self.open(state)
        logger.info(
            "training on %d images of %s: iterations %d to %d of %d images each (%d processes × %d parts × %d), "
            "precision %s (%s), TF32 %s, device %s",
            *(len(pairs), self.spec.name, self.iteration, cfg.SOLVER.MAX_ITER, cfg.SOLVER.IMS_PER_BATCH),
            *(self.processes, cfg.SOLVER.ACCUMULATION_STEPS, images_at_a_time(cfg, self.processes)),
            *resolve_precision(cfg.SOLVER.PRECISION, model.device),
            *("allowed" if cfg.SOLVER.TF32 else "off", model.device),
        )
        self._batches = iter(open_data(cfg, pairs, model.device, self.pictures))
        self._latest: Batch | None = None

    def step(self, signum: int = 0) -> int:
        """Do one iteration; the host waits for the device's results of the previous iteration, not of this one.

        From the signal by which this process was asked to stop, or 0, it returns that by which any process was. All
        processes agree whether there was one; if there were several, they may return different ones.

        Raises:
            TrainingError: the loss of the previous iteration is not a finite number; see :class:`LossMonitor`.
        """
        start = time.perf_counter()
        # random numbers (stochastic depth, dropout) follow from the position alone: nothing to save, nothing to restore
        set_seed(seed_of(self.cfg.SEED, self.iteration, self.accelerator.process_index) % 2**32)
        batches = [next(self._batches) for _ in range(self.cfg.SOLVER.ACCUMULATION_STEPS)]
        self.skipped.add([problem for batch in batches for problem in batch.damaged])
        data_seconds = time.perf_counter() - start

        parts, labels = [], [batch.labels for batch in batches]
        num_pixels = mean_pixels(labels, self.model, len(self.spec.vocabulary), self.cfg)
        for number, batch in enumerate(batches, start=1):
            is_last = number == len(batches)
            with gradient_sync(self.accelerator, self.model, self.network, is_last=is_last):
                with self.accelerator.autocast():
                    losses = training_loss(
                        *(self.network, self.model, batch, self.text, self.spec, self.cfg, num_pixels),
                        *(self.teacher, self.loss_terms),
                    )
                each = torch.stack(list(losses.values())) / len(batches)
                parts.append(each.detach())
                loss = each.sum()
                if self.scaler.is_enabled():  # makes the gradients of a loss that is not finite so too: skips the step
                    loss = loss * (1 + 0 * loss.detach())
                self.accelerator.backward(loss)

        totals = sum(parts[1:], start=parts[0])
        total = totals.sum()
        several = {f"loss_{name}": value for name, value in zip(losses, totals, strict=True) if len(losses) > 1}
        own = {"signal": torch.full_like(total, signum), "total_loss": total, **several}
        means = self.accelerator.reduce(torch.stack([*own.values()]), reduction="mean")
        numbers = dict(zip(own, means, strict=True))
        self.monitor.check()
        lr = set_learning_rates(self.optimizer, self.cfg, self.iteration)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        if self.average is not None:
            self.average.update()
        if self.scaler.is_enabled():
            numbers["loss_scale"] = self.scaler.scale(torch.ones_like(total))
        files = [path for batch in batches for path in batch.paths]
        seconds = time.perf_counter() - start
        self.monitor.pending = Iteration(
            *(self.iteration, files, total, DeferredScalars(numbers), lr, seconds, data_seconds)
        )
        self.iteration += 1
        self.pictures += self.cfg.SOLVER.IMS_PER_BATCH
        self._latest = batches[0]
        asked_to_stop = self.monitor.asked_to_stop if self.processes > 1 else signum
        return (signum or signal.SIGTERM) if asked_to_stop else 0

    def label_latest(self) -> tuple[Batch, np.ndarray, Sequence[str]]:
        """Label the first images of the latest iteration's first part."""
        assert self._latest is not None
        with self.accelerator.autocast():
            predictions = predict_batch(self.model, self.network, self._latest, self.text, self.cfg)
        return self._latest, predictions, self.spec.vocabulary

    def run_evaluation(self, weights: dict[str, Tensor]) -> list[BenchmarkResult]:
        """Evaluate weights in a separate network: the training one keeps its mode, gradients and random numbers."""
        cfg = evaluation_cfg(self.cfg, self.iteration)
        load_weights(self.evaluated, Path(cfg.MODEL.WEIGHTS) if reports_test(self.cfg, self.iteration) else weights)
        results = evaluate(cfg, self.evaluated.to(self.model.device))
        self.evaluated.cpu()
        return results

    def close(self) -> None:
        """Close files and loader processes, unwrap the model, and leave training mode."""
        del self._batches
        super().close()
        if not isinstance(self.model, FSDPModule):
            self.accelerator.unwrap_model(self.network, keep_fp32_wrapper=False)
        self.model.eval()
