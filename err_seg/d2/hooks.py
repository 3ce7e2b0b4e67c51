"""What a training run does besides stepping, as hooks of detectron2's trainers."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.utils import set_seed
from detectron2.engine import HookBase
from detectron2.utils import comm
from fvcore.common.config import CfgNode

from err_seg.checkpoint import save_weights
from err_seg.data import Batch
from err_seg.data.loader import seed_of
from err_seg.engine.report import Report
from err_seg.engine.vis import compare, predict_batch, save_comparison


class Stopped(BaseException):
    """The run was asked to stop and has written a checkpoint; no exception to detectron2, which would print it.

    Attributes:
        signum: the signal.
    """

    def __init__(self, signum: int):
        super().__init__(signum)
        self.signum = signum


class SeedIterations(HookBase):
    """Lets the random numbers of an iteration (stochastic depth, dropout) follow from its place in the run alone."""

    def __init__(self, seed: int):
        self.seed = seed

    def before_step(self) -> None:
        """Seed."""
        set_seed(seed_of(self.seed, self.trainer.iter, comm.get_rank()) % 2**32)


class StopOnSignal(HookBase):
    """Saves a checkpoint and ends the run after an iteration in which a process was asked to stop."""

    def after_step(self) -> None:
        """Stop, in all processes together."""
        signum = max(comm.all_gather(self.trainer.stopping.signum))
        if signum:
            iteration = self.trainer.iter
            self.trainer.checkpointer.save(f"model_{iteration:07d}", iteration=iteration)
            raise Stopped(signum)


class WriteReport(HookBase):
    """The plain engine's log, ``metrics.json``, TensorBoard and Weights & Biases, by the ``LOG`` keys.

    Args:
        cfg: the plain engine's configuration.
        device: where the network lies.
    """

    def __init__(self, cfg: CfgNode, device: torch.device):
        self.cfg, self.device = cfg, device
        self.report: Report | None = None
        self._losses: list[float] = []

    def before_train(self) -> None:
        """Open the files."""
        self.report = Report(self.cfg, self.device, self.trainer.start_iter, self._losses)

    def before_step(self) -> None:
        """Start the clock."""
        self._start = time.perf_counter()

    def after_step(self) -> None:
        """Take note of the iteration."""
        assert self.report is not None
        values = self.trainer.storage.latest()
        lr = max(group["lr"] for group in self.trainer.optimizer.param_groups)
        seconds = time.perf_counter() - self._start
        self.report.iteration(self.trainer.iter, values["total_loss"][0], lr, seconds, values["data_time"][0])

    def after_train(self) -> None:
        """Close the files."""
        if self.report is not None:
            self.report.close()

    def state_dict(self) -> dict[str, Any]:
        """Return the losses that no line stands for yet."""
        return {"losses": list(self.report.losses if self.report is not None else self._losses)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from the losses of a checkpoint."""
        self._losses = list(state["losses"])


class SaveComparisons(HookBase):
    """Writes pictures of what the network predicts every ``VIS_PERIOD`` iterations.

    Args:
        cfg: the plain engine's configuration.
        model: the meta-architecture.
    """

    def __init__(self, cfg: CfgNode, model: Any):
        self.cfg, self.model = cfg, model
        self._latest: Sequence[dict[str, Any]] = ()

    def before_train(self) -> None:
        """Look at what the model is given."""
        self._handle = self.model.register_forward_pre_hook(self._remember)

    def after_train(self) -> None:
        """Stop looking."""
        self._handle.remove()

    def _remember(self, model: Any, arguments: tuple[Any, ...]) -> None:
        self._latest = arguments[0]

    def after_step(self) -> None:
        """Write a picture when it is time to."""
        done = self.trainer.iter + 1
        if done % self.cfg.VIS_PERIOD:
            return
        images, labels = (torch.stack([x[key] for x in self._latest]) for key in ("image", "sem_seg"))
        batch = Batch(images, labels, [x.get("file_name", "") for x in self._latest])
        names = self.model.train_dataset.vocabulary
        network = self.model.network
        predictions = predict_batch(network, network, batch, network.embed_vocabulary(names), self.cfg)
        image = compare(batch, predictions, names)
        save_comparison(image, self.cfg, done)
        self.trainer.storage.put_image("predictions", np.asarray(image).transpose(2, 0, 1))


class SaveFinalWeights(HookBase):
    """Writes ``model_final.safetensors`` when the last iteration is done.

    Args:
        output: ``OUTPUT_DIR``.
        network: the plain engine's network.
    """

    def __init__(self, output: Path, network: torch.nn.Module):
        self.output, self.network = output, network

    def after_train(self) -> None:
        """Write the weights."""
        if self.trainer.iter >= self.trainer.max_iter - 1:
            save_weights(self.network, self.output / "model_final.safetensors")
