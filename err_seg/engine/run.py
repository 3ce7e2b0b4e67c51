"""One process's part in a training run: what is trained, with what, and how far it is."""

import logging
import math
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch
from accelerate.utils import gather_object, set_seed
from fvcore.common.config import CfgNode
from torch import Tensor
from torch.distributed.fsdp import FSDPModule

from err_seg.data import Batch, SegmentationPairs, get_dataset, training_loader
from err_seg.data.loader import seed_of
from err_seg.device import resolve_precision
from err_seg.engine.checkpoints import WEIGHTS, Checkpoints, TrainingState, changed_settings, check_output_folder
from err_seg.engine.damaged import DamagedPairs
from err_seg.engine.environment import save_environment
from err_seg.engine.errors import TrainingError
from err_seg.engine.optimizer import build_schedule, gather_optimizer_state, restore_optimizer_state, whole
from err_seg.engine.parallel import (
    build_accelerator,
    check_shared_folder,
    distribute,
    is_main_process,
    pictures_at_a_time,
    wait_for_all,
    without_sync,
)
from err_seg.engine.report import Report, check_trackers
from err_seg.engine.step import mean_pixels, training_loss, training_transform, vocabulary_input
from err_seg.engine.vis import compare, predict_batch, save_comparison
from err_seg.files import atomic_write
from err_seg.modeling.err_seg import ERRSeg

logger = logging.getLogger(__name__)

NAMED_FILES = 8


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
        self.checkpoints = Checkpoints(Path(cfg.OUTPUT_DIR), cfg.SOLVER.CHECKPOINTS_KEPT)
        self.damaged = DamagedPairs(Path(cfg.OUTPUT_DIR))
        state = self._prepare_output(resume)
        self.iteration, self.pictures = state.iteration, state.pictures

        self.text = vocabulary_input(model, self.spec.vocabulary)
        self.network, self.optimizer, self.adamw = distribute(cfg, self.accelerator, model)
        if state.iteration:
            restore_optimizer_state(self.adamw, state.optimizer)
        if state.scaler and self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(state.scaler)
        self.schedule = build_schedule(self.adamw, cfg, start=state.iteration)
        self.network.train()
        self.report = Report(cfg, model.device, state.iteration, state.losses) if self.is_main else None
        self._batches = self._open_data(pairs)
        self._latest: Batch | None = None

    def _prepare_output(self, resume: bool) -> TrainingState:
        """Check and tidy the output folder; return the state to start from, its weights loaded into the model."""
        cfg, solver = self.cfg, self.cfg.SOLVER
        if self.is_main:
            written = -(-solver.MAX_ITER // solver.CHECKPOINT_PERIOD)
            together = min(solver.CHECKPOINTS_KEPT + 1, written)
            check_output_folder(Path(cfg.OUTPUT_DIR), self.model, checkpoints=together, resume=resume)
        check_shared_folder(Path(cfg.OUTPUT_DIR))
        if self.is_main and not resume:
            self.checkpoints.set_aside()
            self.damaged.forget()
        wait_for_all()
        state = (self.checkpoints.load_newest(self.model) if resume else None) or TrainingState()
        wait_for_all()
        if self.is_main:
            self.checkpoints.tidy(state.iteration)
            if state.config and (changes := changed_settings(state.config, cfg.dump())):
                logger.warning("settings that changed since the checkpoint: %s", "; ".join(changes))
            save_environment(cfg, Path(cfg.OUTPUT_DIR), self.model.device, self.processes)
        return state

    def _open_data(self, pairs: SegmentationPairs) -> Iterator[Batch]:
        cfg = self.cfg
        logger.info(
            "training on %d pictures of %s: iterations %d to %d of %d pictures each (%d processes × %d parts × %d), "
            "precision %s (%s), TF32 %s, device %s",
            *(len(pairs), self.spec.name, self.iteration, cfg.SOLVER.MAX_ITER, cfg.SOLVER.IMS_PER_BATCH),
            *(self.processes, cfg.SOLVER.ACCUMULATION_STEPS, self.batch_size),
            *resolve_precision(cfg.SOLVER.PRECISION, self.model.device),
            *("allowed" if cfg.SOLVER.TF32 else "off", self.model.device),
        )
        loader = training_loader(
            pairs,
            training_transform(cfg, self.spec.ignore_label),
            self.batch_size,
            seed=cfg.SEED,
            workers=cfg.DATALOADER.NUM_WORKERS,
            start=self.pictures,
            rank=self.accelerator.process_index,
            world_size=self.processes,
            skip_damaged=cfg.DATALOADER.SKIP_DAMAGED,
        )
        return iter(loader)

    def step(self, signum: int = 0) -> int:
        """Do one iteration.

        Args:
            signum: the signal by which this process was asked to stop, or 0.

        Returns:
            The signal by which any process was asked to stop, or 0: the same everywhere, up to which of several it is.

        Raises:
            TrainingError: the loss is not a finite number; names iteration, pictures and last checkpoint.
        """
        start = time.perf_counter()
        steps = self.cfg.SOLVER.ACCUMULATION_STEPS
        # random numbers (stochastic depth, dropout) follow from the position alone: nothing to save, nothing to restore
        set_seed(seed_of(self.cfg.SEED, self.iteration, self.accelerator.process_index) % 2**32)
        batches = [next(self._batches) for _ in range(steps)]
        self.damaged.note([problem for batch in batches for problem in batch.damaged])
        data_seconds = time.perf_counter() - start
        total, num_pixels = torch.zeros((), device=self.model.device), None
        if not self.cfg.MODEL.LOSS.IGNORED_ARE_NEGATIVES:  # else all parts have as many
            num_pixels = mean_pixels([batch.labels for batch in batches], self.model, len(self.spec.vocabulary))
        for number, batch in enumerate(batches, start=1):
            with nullcontext() if number == steps else without_sync(self.accelerator, self.model, self.network):
                with self.accelerator.autocast():
                    loss = training_loss(self.network, self.model, batch, self.text, self.spec, self.cfg, num_pixels)
                    loss = loss / steps
                self.accelerator.backward(loss)
            total += loss.detach()
        shared = self.accelerator.reduce(torch.stack([total, torch.full_like(total, signum)]), reduction="mean")
        mean_loss, any_signal = shared.tolist()
        if not math.isfinite(mean_loss):
            self._report_broken(mean_loss, total, batches)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        lr = max(group["lr"] for group in self.adamw.param_groups)
        self.schedule.step()

        if self.report is not None:
            self.report.iteration(self.iteration, mean_loss, lr, time.perf_counter() - start, data_seconds)
        self.iteration += 1
        self.pictures += self.cfg.SOLVER.IMS_PER_BATCH
        self._latest = batches[0]
        return (signum or signal.SIGTERM) if any_signal else 0

    def _report_broken(self, mean_loss: float, own_loss: Tensor, batches: list[Batch]) -> None:
        own = [] if own_loss.isfinite() else [path for batch in batches for path in batch.paths]
        files = gather_object(own)
        more = f" and {len(files) - NAMED_FILES} more" if len(files) > NAMED_FILES else ""
        raise TrainingError(
            f"the loss is {mean_loss} at iteration {self.iteration}, pictures {', '.join(files[:NAMED_FILES])}{more}; "
            f"{self.checkpoints.newest_text()}. Look at these pictures and their labels; else lower SOLVER.BASE_LR or "
            'try SOLVER.PRECISION "bf16" or "fp32", and --resume'
        )

    def show(self) -> None:
        """Write what the network now predicts for the latest batch, as a picture."""
        assert self._latest is not None
        with self.accelerator.autocast():
            predictions = predict_batch(self.model, self.network, self._latest, self.text, self.cfg)
        if self.report is not None:
            image = compare(self._latest, predictions, self.spec.vocabulary)
            save_comparison(image, self.cfg, self.iteration)
            self.report.picture(self.iteration - 1, np.asarray(image))

    def save(self) -> None:
        """Write a checkpoint; all processes must ask.

        Raises:
            TrainingError: it could not be written, or weights are not finite; earlier checkpoints are as before.
        """
        if self.is_main or isinstance(self.model, FSDPModule):
            weights = {name: whole(tensor).detach().cpu() for name, tensor in self.model.state_dict().items()}
            optimizer = gather_optimizer_state(self.adamw)
        if self.report is not None:
            broken = [name for name, tensor in weights.items() if not tensor.isfinite().all()]
            if broken:
                raise TrainingError(
                    f"after {self.iteration} iterations weights are not finite, such as {broken[0]}, and are not "
                    f"saved; {self.checkpoints.newest_text()}. Lower SOLVER.BASE_LR or try another SOLVER.PRECISION"
                )
            scaler = self.accelerator.scaler.state_dict() if self.accelerator.scaler is not None else {}
            state = TrainingState(self.iteration, self.pictures, optimizer, scaler, self.report.losses, self.cfg.dump())
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
        """Write ``model_final.safetensors``: the weights of the newest checkpoint."""
        if self.is_main:
            newest = self.checkpoints.newest_first()[0]
            with atomic_write(Path(self.cfg.OUTPUT_DIR) / "model_final.safetensors") as partial:
                shutil.copyfile(newest / WEIGHTS, partial)
        wait_for_all()

    def close(self) -> None:
        """Close files and loader processes, take off what training wrapped the model in, and leave training mode."""
        del self._batches
        if self.report is not None:
            self.report.close()
        if not isinstance(self.model, FSDPModule):
            self.accelerator.unwrap_model(self.network, keep_fp32_wrapper=False)
        self.model.eval()
