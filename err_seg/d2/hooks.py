"""What a training run does besides stepping, as hooks of detectron2's trainers."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.utils import set_seed
from detectron2.engine import HookBase, hooks
from detectron2.utils import comm
from fvcore.common.config import CfgNode
from torch.utils.hooks import RemovableHandle

from err_seg.checkpoint import save_weights
from err_seg.d2.mapper import DAMAGED
from err_seg.data import Batch
from err_seg.data.loader import seed_of
from err_seg.engine.damaged import DamagedPairs
from err_seg.engine.errors import TrainingError
from err_seg.engine.run_log import RunLog
from err_seg.engine.trial import BestWeights, figures_of, trial_cfg
from err_seg.engine.vis import compare, predict_batch, save_comparison
from err_seg.evaluation.report import load_results

NAMED_FILES = 8


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


class LatestBatch(HookBase):
    """Remembers what the model was given last.

    Args:
        model: the meta-architecture.

    Attributes:
        inputs: a dictionary a picture.
    """

    def __init__(self, model: torch.nn.Module):
        self.model = model
        self.inputs: Sequence[dict[str, Any]] = ()
        self._handle: RemovableHandle | None = None

    def before_train(self) -> None:
        """Look at what the model is given."""
        self._handle = self.model.register_forward_pre_hook(self._remember)

    def after_train(self) -> None:
        """Stop looking."""
        if self._handle is not None:
            self._handle.remove()

    def text(self) -> str:
        """List the first files, for messages."""
        files = [x.get("file_name", "without a name") for x in self.inputs]
        return ", ".join(files[:NAMED_FILES]) + (
            f" and {len(files) - NAMED_FILES} more" if len(files) > NAMED_FILES else ""
        )

    def _remember(self, model: Any, arguments: tuple[Any, ...]) -> None:
        self.inputs = arguments[0]


def check_finite(trainer: Any) -> None:
    """Check the weights of a trainer's model before they are saved.

    Raises:
        TrainingError: some are infinite or NaN; names one.
    """
    state = trainer.checkpointer.model.network.state_dict()
    broken = next((name for name, tensor in state.items() if not tensor.isfinite().all()), None)
    if broken is not None:
        last = trainer.checkpointer.get_checkpoint_file() or "there is none yet"
        raise TrainingError(
            f"after {trainer.iter + 1} iterations weights are not finite, such as {broken}, and are not saved; the "
            f"last checkpoint: {last}. Lower SOLVER.BASE_LR or try another SOLVER.PRECISION"
        )


class SaveCheckpoints(hooks.PeriodicCheckpointer):
    """Saves checkpoints as detectron2's hook does, of finite weights alone."""

    def after_step(self) -> None:
        """Save when it is time to."""
        done = self.trainer.iter + 1
        if done % self.period == 0 or done >= self.trainer.max_iter:
            check_finite(self.trainer)
        super().after_step()


class StopOnSignal(HookBase):
    """Saves a checkpoint and ends the run after an iteration in which a process was asked to stop."""

    def after_step(self) -> None:
        """Stop, in all processes together."""
        signum = max(comm.all_gather(self.trainer.stopping.signum))
        if signum:
            iteration = self.trainer.iter
            check_finite(self.trainer)
            self.trainer.checkpointer.save(f"model_{iteration:07d}", iteration=iteration)
            raise Stopped(signum)


class ListDamagedPairs(HookBase):
    """Lists the pairs that were passed over, as ``DATALOADER.SKIP_DAMAGED`` allows.

    Args:
        output: ``OUTPUT_DIR``.
        latest: who has the batch.
    """

    def __init__(self, output: Path, latest: LatestBatch):
        self.pairs, self.latest = DamagedPairs(output), latest

    def before_train(self) -> None:
        """Forget an earlier run's."""
        if self.trainer.start_iter == 0 and comm.is_main_process():
            self.pairs.forget()
        comm.synchronize()

    def after_step(self) -> None:
        """Look at the batch."""
        self.pairs.note([problem for x in self.latest.inputs for problem in x.get(DAMAGED, ())])


class WriteReport(HookBase):
    """The plain engine's log, ``metrics.json``, TensorBoard and Weights & Biases, by the ``LOG`` keys.

    Args:
        cfg: the plain engine's configuration.
        device: where the network lies.
    """

    def __init__(self, cfg: CfgNode, device: torch.device):
        self.cfg, self.device = cfg, device
        self.report: RunLog | None = None
        self._losses: list[float] = []

    def before_train(self) -> None:
        """Open the files."""
        self.report = RunLog(self.cfg, self.device, self.trainer.start_iter, self._losses)

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


class EvaluateAndKeepBest(HookBase):
    """Evaluates every ``TEST.EVAL_PERIOD`` iterations and after the last one, as the plain engine does.

    Args:
        own: the plain engine's configuration.
        cfg: detectron2's.
        test: what evaluates, given a configuration for detectron2 and a model.
        model: the meta-architecture.
        writer: who has the report, in the main process.
    """

    def __init__(self, own: CfgNode, cfg: CfgNode, test: Callable[..., Any], model: Any, writer: WriteReport):
        self.period, self.cfg, self.test, self.model, self.writer = own.TEST.EVAL_PERIOD, cfg, test, model, writer
        self.best = BestWeights(own)

    def after_step(self) -> None:
        """Evaluate when it is time to."""
        done = self.trainer.iter + 1
        if done % self.period and done < self.trainer.max_iter:
            return
        check_finite(self.trainer)
        cfg = trial_cfg(self.cfg, done)
        self.test(cfg, self.model)
        if self.writer.report is not None:
            results = load_results(Path(cfg.OUTPUT_DIR) / "results.json")
            self.writer.report.evaluation(self.trainer.iter, figures_of(results))
            self.best.offer(self.model.network, done, results)
        comm.synchronize()

    def state_dict(self) -> dict[str, Any]:
        """Return the best result so far."""
        return {"mean": self.best.mean}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from the best result of a checkpoint."""
        self.best.mean = state["mean"]


class SaveComparisons(HookBase):
    """Writes pictures of what the network predicts every ``VIS_PERIOD`` iterations, and shows them in the report.

    Args:
        cfg: the plain engine's configuration.
        model: the meta-architecture.
        latest: who has the batch.
        writer: who has the report.
    """

    def __init__(self, cfg: CfgNode, model: Any, latest: LatestBatch, writer: WriteReport):
        self.cfg, self.model, self.latest, self.writer = cfg, model, latest, writer

    def after_step(self) -> None:
        """Write a picture when it is time to."""
        done = self.trainer.iter + 1
        if done % self.cfg.VIS_PERIOD:
            return
        images, labels = (torch.stack([x[key] for x in self.latest.inputs]) for key in ("image", "sem_seg"))
        batch = Batch(images, labels, [x.get("file_name", "") for x in self.latest.inputs])
        names = self.model.train_dataset.vocabulary
        network = self.model.network
        predictions = predict_batch(network, network, batch, network.embed_vocabulary(names), self.cfg)
        image = compare(batch, predictions, names)
        save_comparison(image, self.cfg, done)
        assert self.writer.report is not None
        self.writer.report.picture(self.trainer.iter, np.asarray(image))


class SaveFinalWeights(HookBase):
    """Writes ``model_final.safetensors`` when the last iteration is done.

    Args:
        output: ``OUTPUT_DIR``.
        network: the plain engine's network.
    """

    def __init__(self, output: Path, network: torch.nn.Module):
        self.output, self.network = output, network

    def before_train(self) -> None:
        """Write the weights of a run that has no iteration left: it may have ended before they were written."""
        if self.trainer.start_iter >= self.trainer.max_iter:
            self._write()

    def after_step(self) -> None:
        """Write the weights after the last iteration; ``after_train`` is also called where it has failed."""
        if self.trainer.iter == self.trainer.max_iter - 1:
            self._write()

    def _write(self) -> None:
        save_weights(self.network, self.output / "model_final.safetensors")
