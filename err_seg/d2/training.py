"""Training and evaluation of ``err-seg train`` by detectron2."""

import os
from pathlib import Path

from detectron2.modeling import build_model
from detectron2.utils import comm
from detectron2.utils.logger import setup_logger

from err_seg.config import Config
from err_seg.d2.config import to_detectron2
from err_seg.d2.trainer import Trainer
from err_seg.d2.weights import load_configured
from err_seg.evaluation import BenchmarkResult
from err_seg.evaluation.results import load_results
from err_seg.models.build import compile_network
from err_seg.utils.errors import EvaluationError, translate_errors
from err_seg.utils.processes import check_shared_folder, process_share, wait_for_all


def train(cfg: Config, *, resume: bool = False) -> None:
    """Train with :class:`err_seg.d2.Trainer`; arguments, files and errors as :func:`err_seg.engine.train`."""
    join_detectron2()
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=resume)
    trainer.train()


def evaluate(cfg: Config) -> list[BenchmarkResult]:
    """Evaluate with detectron2's loop; configuration, files and result as :func:`err_seg.engine.evaluate`."""
    join_detectron2()
    check_shared_folder(Path(cfg.OUTPUT_DIR))
    model = build_model(to_detectron2(cfg))
    load_configured(model.network, cfg.MODEL.WEIGHTS)
    compile_network(cfg, model.network)
    with translate_errors(EvaluationError, lambda: "nothing of this evaluation is kept", "rerun the same command"):
        Trainer.test(cfg, model)
    wait_for_all()
    return load_results(Path(cfg.OUTPUT_DIR) / "results.json")


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
