"""One process's part in a training run: what is trained, with what, and how far it is."""

import logging
import signal
import time
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch
from accelerate.utils import set_seed
from fvcore.common.config import CfgNode
from torch import Tensor
from torch.distributed.fsdp import FSDPModule

from err_seg.checkpoint import save_weights
from err_seg.data import Batch, SegmentationPairs, get_dataset
from err_seg.data.loader import seed_of
from err_seg.engine.averaging import WeightAverage
from err_seg.engine.checkpoints import Checkpoints, TrainingState
from err_seg.engine.damaged import DamagedPairs
from err_seg.engine.errors import TrainingError
from err_seg.engine.optimizer import gather_optimizer_state, restore_optimizer_state, whole
from err_seg.engine.parallel import (
    build_accelerator,
    distribute,
    is_main_process,
    pictures_at_a_time,
    wait_for_all,
    without_sync,
)
from err_seg.engine.report import Report, check_trackers
from err_seg.engine.schedule import set_learning_rates
from err_seg.engine.start import open_data, prepare_output
from err_seg.engine.step import mean_pixels, training_loss, vocabulary_input
from err_seg.engine.trial import Trial
from err_seg.engine.vis import compare, predict_batch, save_comparison
from err_seg.engine.watch import Iteration, LateNumbers, Watch
from err_seg.modeling.err_seg import ERRSeg

logger = logging.getLogger(__name__)


class TrainingRun:
    """A training run that can be stepped, shown, saved and finished; arguments and errors as ``train``.

    Attributes:
        iteration: iterations done.
        pictures: pictures consumed by all processes together.
        checkpoints: where they are saved.
        report: who tells of it, in the main process.
    """

    def __init__(self, cfg: CfgNode, model: ERRSeg, *, resume: bool):
        self.cfg, self.model = cfg, model
        self.is_main = is_main_process()
        check_trackers(cfg)
        self.accelerator = build_accelerator(cfg, model.device)
        self.processes = self.accelerator.num_processes
        self.batch_size = pictures_at_a_time(cfg, self.processes)
        self.spec = get_dataset(cfg.DATASETS.TRAIN[0])
        pairs = SegmentationPairs(self.spec, cfg.DATASETS.ROOT)
        self.trial = Trial(cfg, model) if cfg.TEST.EVAL_PERIOD else None
        self.checkpoints = Checkpoints(Path(cfg.OUTPUT_DIR), cfg.SOLVER.CHECKPOINTS_KEPT)
        self.damaged = DamagedPairs(Path(cfg.OUTPUT_DIR))
        state = prepare_output(cfg, model, self.checkpoints, self.damaged, resume=resume)
        self.iteration, self.pictures = state.iteration, state.pictures

        self.text = vocabulary_input(model, self.spec.vocabulary)
        self.network, self.optimizer = distribute(cfg, self.accelerator, model)
        self.average = WeightAverage(model, cfg.SOLVER.EMA.DECAY) if cfg.SOLVER.EMA.ENABLED else None
        self.scaler: torch.amp.GradScaler | None = self.accelerator.scaler
        self._restore(state)
        self.network.train()
        self.report = Report(cfg, model.device, state.iteration, state.losses) if self.is_main else None
        scale = self.scaler.get_scale() if self.scaler is not None else None
        self.watch = Watch(self.checkpoints, self.report, state, scale)
        share = self.accelerator.process_index, self.processes
        self._batches = iter(open_data(cfg, pairs, model.device, self.batch_size, share, start=state))
        self._latest: Batch | None = None

    def _restore(self, state: TrainingState) -> None:
        """Go on with what a state holds besides weights and counters."""
        if state.iteration:
            restore_optimizer_state(self.optimizer, state.optimizer)
        if self.average is not None:
            self.average.restore(state.average)
        if self.trial is not None:
            self.trial.best.mean = state.best
        if state.scaler and self.scaler is not None:
            self.scaler.load_state_dict(state.scaler)

    def step(self, signum: int = 0) -> int:
        """Do one iteration; the host does not wait for what the device makes of it, but for the one before.

        Args:
            signum: the signal by which this process was asked to stop, or 0.

        Returns:
            The signal by which any process was asked to stop, or 0: the same everywhere, up to which of several it is.

        Raises:
            TrainingError: the loss of the iteration before is not a finite number; see :class:`Watch`.
        """
        start = time.perf_counter()
        # random numbers (stochastic depth, dropout) follow from the position alone: nothing to save, nothing to restore
        set_seed(seed_of(self.cfg.SEED, self.iteration, self.accelerator.process_index) % 2**32)
        batches = [next(self._batches) for _ in range(self.cfg.SOLVER.ACCUMULATION_STEPS)]
        self.damaged.note([problem for batch in batches for problem in batch.damaged])
        data_seconds = time.perf_counter() - start
        loss = self._backward(batches)
        told = self.accelerator.reduce(torch.stack([loss, torch.full_like(loss, signum)]), reduction="mean")
        self.watch.settle()
        lr = set_learning_rates(self.optimizer, self.cfg, self.iteration)
        self._update_weights()

        if self.scaler is not None:
            told = torch.cat([told, self.scaler.scale(torch.ones_like(told[:1]))])
        files = [path for batch in batches for path in batch.paths]
        seconds = time.perf_counter() - start
        self.watch.note(Iteration(self.iteration, files, loss, LateNumbers(told), lr, seconds, data_seconds))
        self.iteration += 1
        self.pictures += self.cfg.SOLVER.IMS_PER_BATCH
        self._latest = batches[0]
        asked_to_stop = self.watch.asked_to_stop if self.processes > 1 else signum
        return (signum or signal.SIGTERM) if asked_to_stop else 0

    def _backward(self, batches: list[Batch]) -> Tensor:
        """Add up the gradients of an iteration's parts; return this process's loss, a scalar on the device."""
        total, num_pixels = torch.zeros((), device=self.model.device), None
        if not self.cfg.MODEL.LOSS.IGNORED_ARE_NEGATIVES:  # else all parts have as many
            num_pixels = mean_pixels([batch.labels for batch in batches], self.model, len(self.spec.vocabulary))
        for number, batch in enumerate(batches, start=1):
            is_last = number == len(batches)
            with nullcontext() if is_last else without_sync(self.accelerator, self.model, self.network):
                with self.accelerator.autocast():
                    loss = training_loss(self.network, self.model, batch, self.text, self.spec, self.cfg, num_pixels)
                loss = loss / len(batches)
                total += loss.detach()
                if self.scaler is not None:  # steps with gradients that are not finite are skipped; so is this one then
                    loss = loss * (1 + 0 * loss.detach())
                self.accelerator.backward(loss)
        return total

    def _update_weights(self) -> None:
        if self.scaler is not None:
            self.scaler.step(self.optimizer)
            self.scaler.update()
        else:
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.average is not None:
            self.average.update()

    def show(self) -> None:
        """Write what the network now predicts for the latest batch, as a picture."""
        assert self._latest is not None
        self.watch.settle()
        with self.accelerator.autocast():
            predictions = predict_batch(self.model, self.network, self._latest, self.text, self.cfg)
        if self.report is not None:
            image = compare(self._latest, predictions, self.spec.vocabulary)
            save_comparison(image, self.cfg, self.iteration)
            self.report.picture(self.iteration - 1, np.asarray(image))

    def evaluate(self) -> None:
        """Evaluate the weights (their moving average, with ``SOLVER.EMA``) and keep the best; all processes must ask.

        Raises:
            TrainingError: the loss or weights are not finite.
        """
        assert self.trial is not None
        self.watch.settle()
        figures = self.trial(self._final_weights(), self.iteration)
        if self.report is not None:
            self.report.evaluation(self.iteration - 1, figures)

    def save(self) -> None:
        """Write a checkpoint; all processes must ask.

        Raises:
            TrainingError: it could not be written, or loss or weights are not finite; earlier ones are as before.
        """
        self.watch.settle()
        if self._has_part:
            weights, optimizer = self._weights(), gather_optimizer_state(self.optimizer)
            average = self.average.state() if self.average is not None else {}
        if self.report is not None:
            state = TrainingState(
                iteration=self.iteration,
                pictures=self.pictures,
                optimizer=optimizer,
                scaler=self.scaler.state_dict() if self.scaler is not None else {},
                losses=self.report.losses,
                config=self.cfg.dump(),
                average=average,
                broken=self.watch.broken,
                skipped=self.watch.skipped,
                best=self.trial.best.mean if self.trial is not None else None,
            )
            try:
                path = self.checkpoints.save(weights, state)
            except OSError as error:
                raise TrainingError(
                    f"could not write the checkpoint of iteration {self.iteration}: {error}; "
                    f"{self.checkpoints.newest_text()}. Make space and --resume"
                ) from error
            logger.info("checkpoint %s", path)
        wait_for_all()

    def finish(self) -> None:
        """Write ``model_final.safetensors``: the last weights, or with ``SOLVER.EMA`` their moving average."""
        if self._has_part:
            weights = self._final_weights()
        if self.is_main:
            facts = {"iteration": self.iteration, "config": self.cfg.dump()}
            save_weights(weights, Path(self.cfg.OUTPUT_DIR) / "model_final.safetensors", facts)
        wait_for_all()

    @property
    def _has_part(self) -> bool:
        """Whether this process is needed to put the weights together."""
        return self.is_main or isinstance(self.model, FSDPModule)

    def _weights(self) -> dict[str, Tensor]:
        """Return the network's state, whole and on the CPU."""
        weights = {name: whole(tensor).detach().cpu() for name, tensor in self.model.state_dict().items()}
        broken = [name for name, tensor in weights.items() if not tensor.isfinite().all()]
        if broken:
            raise TrainingError(
                f"after {self.iteration} iterations weights are not finite, such as {broken[0]}, and are not "
                f"saved; {self.checkpoints.newest_text()}. Lower SOLVER.BASE_LR or try another SOLVER.PRECISION"
            )
        return weights

    def _final_weights(self) -> dict[str, Tensor]:
        return self._weights() | (self.average.state() if self.average is not None else {})

    def close(self) -> None:
        """Close files and loader processes, take off what training wrapped the model in, and leave training mode."""
        del self._batches
        if self.report is not None:
            self.report.close()
        if not isinstance(self.model, FSDPModule):
            self.accelerator.unwrap_model(self.network, keep_fp32_wrapper=False)
        self.model.eval()
