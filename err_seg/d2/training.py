"""Training and evaluation of ``err-seg train`` by detectron2."""

import logging
import os
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.modeling import build_model
from detectron2.utils import comm
from detectron2.utils.logger import setup_logger
from fvcore.common.config import CfgNode

from err_seg.checkpoint import CheckpointError
from err_seg.d2.config import to_detectron2
from err_seg.d2.trainer import Trainer
from err_seg.engine.checkpoints import Checkpoints, changed_settings, check_output_folder
from err_seg.engine.environment import save_environment
from err_seg.engine.errors import EvaluationError
from err_seg.engine.failures import told
from err_seg.engine.parallel import check_shared_folder, is_main_process, process_share, wait_for_all
from err_seg.evaluation import BenchmarkResult
from err_seg.evaluation.report import load_results

logger = logging.getLogger(__name__)


def train(cfg: CfgNode, *, resume: bool = False) -> None:
    """Train on ``DATASETS.TRAIN`` with :class:`err_seg.d2.Trainer`.

    Writes to ``OUTPUT_DIR`` what :func:`err_seg.engine.train` does, but for the checkpoints, which are detectron2's.

    Args:
        cfg: the plain engine's configuration.
        resume: go on from the last checkpoint in ``OUTPUT_DIR``, where there is one.

    Raises:
        ConfigError, CheckpointError, TrainingError, TrainingInterrupted: as the plain engine.
    """
    join_detectron2()
    output, solver = Path(cfg.OUTPUT_DIR), cfg.SOLVER
    trainer = Trainer(to_detectron2(cfg))
    check_shared_folder(output)
    if is_main_process():
        if not resume:
            # one more than are kept lies there while the next is written, and the last one twice
            written = -(-solver.MAX_ITER // solver.CHECKPOINT_PERIOD)
            together = min(solver.CHECKPOINTS_KEPT + 1, written) + 1
            best = cfg.TEST.EVAL_PERIOD > 0
            check_output_folder(output, trainer.meta_arch.network, checkpoints=together, best=best)
            Checkpoints(output, solver.CHECKPOINTS_KEPT).set_aside()
        elif trainer.checkpointer.has_checkpoint():
            warn_of_changes(cfg, output / "config.yaml")
        save_environment(cfg, output, trainer.meta_arch.device, process_share()[1])
    wait_for_all()
    last = trainer.checkpointer.get_checkpoint_file() if resume else ""
    advice = " (To resume from an earlier one, write its name to OUTPUT_DIR/last_checkpoint)" if last else ""
    with readable(last or cfg.MODEL.WEIGHTS, advice):
        trainer.resume_or_load(resume=resume)
    trainer.train()
    wait_for_all()


def warn_of_changes(cfg: CfgNode, before: Path) -> None:
    """Tell which settings differ from those that a run was last started with, where its file is there."""
    if before.exists() and (changes := changed_settings(before.read_text(encoding="utf-8"), cfg.dump())):
        logger.warning("settings that changed since the run was last started: %s", "; ".join(changes))


def evaluate(cfg: CfgNode) -> list[BenchmarkResult]:
    """Evaluate ``MODEL.WEIGHTS`` on ``DATASETS.TEST`` with detectron2's loop; arguments and files as the plain engine.

    Returns:
        The results, which lie in ``OUTPUT_DIR``.

    Raises:
        CheckpointError, EvaluationError: as the plain engine.
    """
    join_detectron2()
    check_shared_folder(Path(cfg.OUTPUT_DIR))
    translated = to_detectron2(cfg)
    model = build_model(translated)
    with readable(cfg.MODEL.WEIGHTS):
        DetectionCheckpointer(model).load(translated.MODEL.WEIGHTS)
    with told(EvaluationError, lambda: "nothing of this evaluation is kept", "give the same command again"):
        Trainer.test(translated, model)
    wait_for_all()
    return load_results(Path(cfg.OUTPUT_DIR) / "results.json")


@contextmanager
def readable(file: str, advice: str = "") -> Iterator[None]:
    """Turn what detectron2's checkpointer says of files that it cannot read into one line.

    Args:
        file: what it reads.
        advice: what the error says to do.

    Raises:
        CheckpointError: there is such a file; names it.
    """
    try:
        yield
    except torch.OutOfMemoryError:  # no fault of the file
        raise
    except (OSError, AssertionError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise CheckpointError(f"detectron2 cannot read the checkpoint {file}: {reason}{advice}") from error


def join_detectron2() -> None:
    """Tell detectron2 of the processes that :func:`err_seg.engine.launch.join_processes` has met, once."""
    rank, processes = process_share()
    if processes == 1:
        return
    try:
        comm.get_local_process_group()
    except AssertionError:  # there is none yet
        comm.create_local_process_group(int(os.environ["LOCAL_WORLD_SIZE"]))
    if rank:
        setup_logger(distributed_rank=rank)  # else detectron2 lets every process talk
