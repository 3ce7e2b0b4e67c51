"""Checks of the loss that never make the host wait: an iteration's numbers are read while the next one runs."""

import logging
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from accelerate.utils import gather_object
from torch import Tensor

from err_seg.engine.checkpoints import Checkpoints, TrainingState
from err_seg.engine.run_log import RunLog
from err_seg.utils.errors import TrainingError
from err_seg.utils.messages import listed

logger = logging.getLogger(__name__)

LOSSES_SKIPPED = 10  # in a row, before a run with loss scaling ends: a few are normal, more do not stop by themselves


class DeferredScalars:
    """A few numbers by name, copied from the device to the host while both continue to compute."""

    def __init__(self, numbers: Mapping[str, Tensor]):
        values = torch.stack([*numbers.values()])
        self._names = [*numbers]
        self._values = values.to("cpu", non_blocking=True)  # into pinned memory, if from CUDA
        self._arrived = torch.cuda.current_stream(values.device).record_event() if values.is_cuda else None

    def read(self) -> dict[str, float]:
        """Return the numbers; waits until they have arrived."""
        if self._arrived is not None:
            self._arrived.synchronize()
        return dict(zip(self._names, self._values.tolist(), strict=True))


class Iteration(NamedTuple):
    """The facts of an iteration.

    Attributes:
        number: which one, from 0.
        files: the files of this process's images.
        own_loss: this process's loss, a scalar on the device.
        numbers: "signal", "total_loss" and what else is logged, means over the processes; "loss_scale" with loss
            scaling.
        lr: the learning rate.
        seconds, data_seconds: how long the iteration took, and how much of that was waiting for data.
    """

    number: int
    files: list[str]
    own_loss: Tensor
    numbers: DeferredScalars
    lr: float
    seconds: float
    data_seconds: float


class LossMonitor:
    """Logs every iteration, one iteration later, and ends the run if its loss is not finite.

    With loss scaling, a loss that is not finite only skips its step, just as gradients that are not finite do; the run
    ends after more than ``LOSSES_SKIPPED`` such losses in a row.

    Args:
        checkpoints: named in messages.
        log: the main process's log; ``None`` in other processes.
        state: where the run starts.
        scale: the loss scale at that point; ``None`` without loss scaling.

    Attributes:
        pending: the last iteration, until :meth:`check` has read it.
        broken: how many losses in a row, up to now, were not finite.
        skipped: how many steps loss scaling has skipped so far.
        asked_to_stop: whether any process was asked to stop; the same in all of them.
    """

    def __init__(self, checkpoints: Checkpoints, log: RunLog | None, state: TrainingState, scale: float | None):
        self.checkpoints, self.log, self.scale = checkpoints, log, scale
        self.broken, self.skipped = state.broken, state.skipped
        self.asked_to_stop = False
        self.pending: Iteration | None = None

    def check(self) -> None:
        """Read and log the pending iteration, if there is one.

        Raises:
            TrainingError: the loss was not finite for too long; names the iteration, images and last checkpoint.
        """
        iteration, self.pending = self.pending, None
        if iteration is None:
            return
        numbers = iteration.numbers.read()
        self.asked_to_stop |= numbers.pop("signal") > 0
        loss, scaling = numbers["total_loss"], dict[str, Any]()
        if self.scale is not None:
            scale = numbers.pop("loss_scale")
            self.skipped += scale < self.scale  # the scale falls exactly when a step is skipped
            self.scale = scale
            scaling = {"loss_scale": scale, "skipped_steps": self.skipped}
        self.broken = 0 if math.isfinite(loss) else self.broken + 1
        if self.broken:
            files = gather_object([] if iteration.own_loss.isfinite() else iteration.files)
            problem = f"the loss is {loss} at iteration {iteration.number}, images {listed(files)}"
            if self.scale is None or self.broken > LOSSES_SKIPPED:
                raise broken_loss(problem, self.checkpoints)
            logger.warning("%s; its step is skipped (%d in a row, of at most %d)", problem, self.broken, LOSSES_SKIPPED)
        if self.log is not None:
            self.log.iteration(
                *(iteration.number, numbers, iteration.lr, iteration.seconds, iteration.data_seconds), **scaling
            )


def broken_loss(problem: str, checkpoints: Checkpoints) -> TrainingError:
    """Return the error for a loss that is not finite: the problem, the newest checkpoint, and what to do."""
    return TrainingError(
        f"{problem}; {checkpoints.newest_text()}. Check these images and their labels; else lower SOLVER.BASE_LR or "
        'try SOLVER.PRECISION "bf16" or "fp32", then rerun with --resume'
    )
