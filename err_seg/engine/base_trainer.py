"""The part of a training run that both engines share: where it starts, what it keeps, and what it writes."""

import logging
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.distributed.fsdp import FSDPModule

from err_seg.config import Config
from err_seg.data import Batch
from err_seg.engine import periodic_eval
from err_seg.engine.checkpoints import Checkpoints, TrainingState, changed_settings, load_legacy_checkpoint
from err_seg.engine.loss_monitor import LossMonitor
from err_seg.engine.optimizer import WeightAverage, gather_optimizer_state, restore_optimizer_state, whole
from err_seg.engine.run_log import RunLog, SkippedSamples
from err_seg.engine.run_setup import check_disk_space, environment
from err_seg.engine.step import Teacher
from err_seg.evaluation import BenchmarkResult
from err_seg.models.checkpoint import save_weights
from err_seg.prediction.model import ERRSeg
from err_seg.utils.errors import TrainingError, TrainingInterrupted
from err_seg.utils.files import write_json, write_text
from err_seg.utils.images import save_image
from err_seg.utils.processes import check_shared_folder, is_main_process, process_share, wait_for_all

logger = logging.getLogger(__name__)


class BaseTrainer:
    """What both engines share; a subclass takes the steps, labels images and evaluates weights.

    Because of it both engines write the same files, so that a run begun with one can be resumed with the other. The
    order of calls: :meth:`prepare`, :meth:`restore`, :meth:`open`, then :meth:`after_iteration` after each iteration.
    Whatever draws, evaluates or writes weights raises a TrainingError where the loss or a weight is not finite.

    Attributes:
        iteration: iterations done.
        pictures: images consumed by all processes together.
        checkpoints: where they are saved.
        best: the highest mean of ``TEST.BEST_METRIC`` over the benchmarks so far; ``None`` before the first.
        log: writes the run's progress; ``None`` except in the main process.
        reported: the results on ``DATASETS.TEST`` of the finished run, if an evaluation during training gave them.
    """

    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler  # disabled except with fp16
    monitor: LossMonitor
    log: RunLog | None = None
    average: WeightAverage | None = None
    teacher: Teacher | None = None
    reported: list[BenchmarkResult] | None = None

    def __init__(self, cfg: Config, model: ERRSeg):
        self.cfg, self.model, self.is_main = cfg, model, is_main_process()
        self.output = Path(cfg.OUTPUT_DIR)
        self.checkpoints = Checkpoints(self.output, cfg.SOLVER.CHECKPOINTS_KEPT)
        self.skipped = SkippedSamples(self.output)

    def prepare(self, *, resume: bool) -> TrainingState:
        """Check and tidy the output folder; load the weights of the state to start from, and return it.

        Raises:
            ConfigError, CheckpointError, TrainingError: as for :func:`err_seg.engine.train`.
        """
        cfg = self.cfg
        if self.is_main:
            check_disk_space(cfg, self.model, resume=resume)
        check_shared_folder(self.output)
        if self.is_main and not resume:
            self.checkpoints.set_aside()
            self.skipped.file.unlink(missing_ok=True)  # of an earlier run
        wait_for_all()
        state = None
        if resume:
            state = self.checkpoints.load_newest(self.model)
            state = state or load_legacy_checkpoint(self.output, self.model, cfg.SOLVER.IMS_PER_BATCH)
        state = state or TrainingState()
        wait_for_all()
        if self.is_main:
            self.checkpoints.tidy(state.iteration)
            if state.config and (changes := changed_settings(state.config, cfg.dump())):
                logger.warning("settings that changed since the checkpoint: %s", "; ".join(changes))
            write_text(self.output / "config.yaml", cfg.dump())  # get_cfg reads it back
            write_json(self.output / "environment.json", environment(cfg, self.model.device, process_share()[1]))
        self.iteration, self.pictures, self.best = state.iteration, state.pictures, state.best
        return state

    def restore(
        self, state: TrainingState, optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler | None
    ) -> None:
        """Restore what the state of :meth:`prepare` holds besides weights and counters; ``scaler`` is fp16's."""
        self.optimizer, self.scaler = optimizer, scaler or torch.amp.GradScaler(enabled=False)
        if state.iteration:
            restore_optimizer_state(optimizer, state.optimizer)
        if self.average is not None:
            self.average.restore(state.average)
        if state.scaler:
            self.scaler.load_state_dict(state.scaler)

    def open(self, state: TrainingState) -> None:
        """Open the log files; if no iteration is left, do what an earlier run may not have come to: :meth:`finish`."""
        averaged = {"total_loss": state.losses, **state.scalars}
        self.log = RunLog(self.cfg, self.model.device, state.iteration, averaged) if self.is_main else None
        scale = self.scaler.get_scale() if self.scaler.is_enabled() else None
        self.monitor = LossMonitor(self.checkpoints, self.log, state, scale)
        if self.iteration >= self.cfg.SOLVER.MAX_ITER:
            self.finish()

    def after_iteration(self, signum: int) -> None:
        """Draw predictions, evaluate, save and finish, each if it is due; all processes must call this.

        ``signum`` is the signal by which any process was asked to stop, or 0.

        Raises:
            TrainingError: a file could not be written.
            TrainingInterrupted: a signal came; a checkpoint was written.
        """
        cfg, done, is_last = self.cfg, self.iteration, self.iteration == self.cfg.SOLVER.MAX_ITER
        if cfg.VIS_PERIOD and done % cfg.VIS_PERIOD == 0:
            self.show()
        if is_last:
            self.finish()
        if cfg.TEST.EVAL_PERIOD and (done % cfg.TEST.EVAL_PERIOD == 0 or is_last):
            self.evaluate()
        if done % cfg.SOLVER.CHECKPOINT_PERIOD == 0 or is_last or signum:
            self.save()
        if signum:
            advice = f"rerun with --resume to continue: {self.checkpoints.newest_text()}"
            raise TrainingInterrupted(f"stopped after {done} iterations; {advice}", signum)

    def label_latest(self) -> tuple[Batch, np.ndarray, Sequence[str]]:
        """Return the latest batch, (B, S, S) class indices of its first B images, and the names of the classes."""
        raise NotImplementedError

    def show(self) -> None:
        """Draw what the network now predicts for the latest batch; all processes must call this."""
        self.monitor.check()
        batch, predictions, names = self.label_latest()
        if self.log is not None:
            image = periodic_eval.compare(batch, predictions, names)
            save_image(image, self.output / "vis" / f"iter_{self.iteration:07d}.png")
            self.log.image(self.iteration - 1, np.asarray(image))

    def run_evaluation(self, weights: dict[str, Tensor]) -> list[BenchmarkResult]:
        """Evaluate weights as :func:`err_seg.engine.periodic_eval.evaluation_cfg` says."""
        raise NotImplementedError

    def evaluate(self) -> None:
        """Evaluate the weights (with ``SOLVER.EMA`` their average) and keep the best; all processes must call this."""
        self.monitor.check()
        weights = self.final_weights()
        results = self.run_evaluation(weights)
        self.reported = results if periodic_eval.reports_test(self.cfg, self.iteration) else None
        mean, metric = periodic_eval.mean_metric(results, self.cfg.TEST.BEST_METRIC), self.cfg.TEST.BEST_METRIC
        if mean > (-math.inf if self.best is None else self.best):
            self.best = mean
            if self.is_main:
                file = self.output / "model_best.safetensors"
                save_weights(weights, file, {"iteration": self.iteration, "config": self.cfg.dump(), metric: mean})
                logger.info("the best weights so far, mean %s %.4f: %s", metric, mean, file)
        if self.log is not None:
            self.log.write({"iteration": self.iteration - 1, **periodic_eval.scalar_metrics(results)})
        wait_for_all()

    def save(self) -> None:
        """Write a checkpoint; all processes must call this.

        Raises:
            TrainingError: it could not be written; earlier ones are unchanged.
        """
        self.monitor.check()
        if self._has_part:
            weights, optimizer = self.weights(), gather_optimizer_state(self.optimizer)
            average = self.average.state() if self.average is not None else {}
        if self.log is not None:
            state = TrainingState(
                iteration=self.iteration,
                pictures=self.pictures,
                optimizer=optimizer,
                scaler=self.scaler.state_dict(),
                losses=self.log.averaged.get("total_loss", []),
                scalars={name: values for name, values in self.log.averaged.items() if name != "total_loss"},
                config=self.cfg.dump(),
                average=average,
                broken=self.monitor.broken,
                skipped=self.monitor.skipped,
                best=self.best,
                teacher=self.teacher.digest if self.teacher is not None else "",
            )
            try:
                path = self.checkpoints.save(weights, state)
            except OSError as error:
                raise TrainingError(
                    f"could not write the checkpoint of iteration {self.iteration}: {error}; "
                    f"{self.checkpoints.newest_text()}. Free some space, then rerun with --resume"
                ) from error
            logger.info("checkpoint %s", path)
        wait_for_all()

    def finish(self) -> None:
        """Write ``model_final.safetensors``: the last weights, or their moving average with ``SOLVER.EMA``."""
        self.monitor.check()
        if self._has_part:
            weights = self.final_weights()
        if self.is_main:
            facts = {"iteration": self.iteration, "config": self.cfg.dump()}
            save_weights(weights, self.output / periodic_eval.FINAL_WEIGHTS, facts)
        wait_for_all()

    @property
    def _has_part(self) -> bool:
        """Whether this process is needed to collect the weights."""
        return self.is_main or isinstance(self.model, FSDPModule)

    def weights(self) -> dict[str, Tensor]:
        """Return the network's state, whole and on the CPU."""
        weights = {name: whole(tensor).detach().cpu() for name, tensor in self.model.state_dict().items()}
        broken = [name for name, tensor in weights.items() if not tensor.isfinite().all()]
        if broken:
            raise TrainingError(
                f"after {self.iteration} iterations weights are not finite, such as {broken[0]}, and are not "
                f"saved; {self.checkpoints.newest_text()}. Lower SOLVER.BASE_LR or try another SOLVER.PRECISION"
            )
        return weights

    def final_weights(self) -> dict[str, Tensor]:
        """Return :meth:`weights`; with ``SOLVER.EMA``, averages replace the trainable ones."""
        return self.weights() | (self.average.state() if self.average is not None else {})

    def close(self) -> None:
        """Close the files."""
        if self.log is not None:
            self.log.close()
