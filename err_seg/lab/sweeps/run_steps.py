"""The steps of a run: each training and each evaluation is a process of ``err-seg train``."""

import os
import sys
from dataclasses import dataclass

import torch

from err_seg.lab.sweeps.definition import SweepError
from err_seg.lab.sweeps.plan import Run
from err_seg.models.checkpoint import weights_file_digest
from err_seg.utils.files import write_text


@dataclass(frozen=True)
class Workers:
    """How steps are run: ``jobs`` at a time, each with the ``--num-gpus`` and ``--engine`` of ``err-seg train``."""

    jobs: int = 1
    num_gpus: int = 1
    engine: str = "auto"

    def environment(self, slot: int) -> dict[str, str]:
        """Return a step's environment in one of the ``jobs`` slots, with its share of GPUs and cores."""
        environment = dict(os.environ)
        if self.jobs > 1:
            cores = os.cpu_count() or 1
            environment.setdefault("OMP_NUM_THREADS", str(max(1, cores // (self.jobs * self.num_gpus))))
            if gpus := visible_gpus():
                environment["CUDA_VISIBLE_DEVICES"] = ",".join(gpus[slot * self.num_gpus : (slot + 1) * self.num_gpus])
        return environment

    def check(self) -> None:
        """Check that there are enough GPUs for all jobs, or none at all.

        Raises:
            SweepError: there are some, but too few.
        """
        gpus, wanted = visible_gpus(), self.jobs * self.num_gpus
        if self.jobs > 1 and gpus and len(gpus) < wanted:
            raise SweepError(
                f"--jobs {self.jobs} of --num-gpus {self.num_gpus} each need {wanted} GPUs, there are {len(gpus)}"
            )


def visible_gpus() -> list[str]:
    """List the GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return [str(index) for index in range(torch.cuda.device_count())]
    return [name for name in visible.split(",") if name.strip()]


class Step:
    """One process: the training or the evaluation of a run.

    Attributes:
        title: how messages name it.
        task: the training or the evaluation.
        iterations: those of a training; 0 for an evaluation.
        is_done: whether the step is done; raises a SweepError if the folder belongs to other settings.
    """

    def __init__(self, run: Run, *, evaluates: bool):
        self.run, self.evaluates = run, evaluates
        self.title = f"{'evaluation' if evaluates else 'training'} of {run.title}"
        self.task = run.evaluation if evaluates else run.training
        self.iterations = 0 if evaluates else run.cfg.SOLVER.MAX_ITER
        self.is_done = run.is_evaluated if evaluates else run.is_trained

    def begin(self, workers: Workers) -> list[str]:
        """Write the facts and the configuration to the folder; return the command line of the process."""
        task, weights = self.task, self.run.weights
        if self.evaluates:
            task.product.unlink(missing_ok=True)  # of other weights
            task.begin(weights_file_digest(weights))
            own = ["--eval-only", "MODEL.WEIGHTS", str(weights)]
        else:
            task.begin()
            own = ["--resume", "DATASETS.TEST", "[]", "TEST.EVAL_PERIOD", "0"]
        cfg = self.run.cfg.clone()
        cfg.OUTPUT_DIR = str(task.folder)
        file = task.folder / "settings.yaml"
        write_text(file, cfg.dump())
        how = ["--num-gpus", str(workers.num_gpus), "--engine", workers.engine]
        return [sys.executable, "-m", "err_seg", "train", "--config-file", str(file), *how, *own]
