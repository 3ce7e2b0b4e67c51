"""What a training run starts from: its output folder, what an earlier run left there, and its place in the data."""

import logging
from pathlib import Path

import torch
from torch.utils.data import DataLoader

from err_seg.config import Config
from err_seg.data import SegmentationPairs, training_loader
from err_seg.engine.checkpoints import Checkpoints, TrainingState, changed_settings, check_output_folder
from err_seg.engine.environment import save_environment
from err_seg.engine.legacy_checkpoint import load_earlier
from err_seg.engine.parallel import images_at_a_time
from err_seg.engine.skipped_samples import DamagedPairs
from err_seg.engine.step import training_transform
from err_seg.prediction.model import ERRSeg
from err_seg.utils.device import resolve_precision
from err_seg.utils.processes import check_shared_folder, is_main_process, process_share, wait_for_all

logger = logging.getLogger(__name__)


def prepare_output(
    cfg: Config, model: ERRSeg, checkpoints: Checkpoints, damaged: DamagedPairs, *, resume: bool
) -> TrainingState:
    """Check and tidy the output folder; return the state to start from, its weights loaded into the model.

    Raises:
        ConfigError, CheckpointError, TrainingError: as for :func:`err_seg.engine.train`.
    """
    solver, output, is_main = cfg.SOLVER, Path(cfg.OUTPUT_DIR), is_main_process()
    if is_main:
        written = -(-solver.MAX_ITER // solver.CHECKPOINT_PERIOD)
        together = min(solver.CHECKPOINTS_KEPT + 1, written)
        averaged, best = solver.EMA.ENABLED, cfg.TEST.EVAL_PERIOD > 0
        check_output_folder(output, model, checkpoints=together, averaged=averaged, best=best, resume=resume)
    check_shared_folder(output)
    if is_main and not resume:
        checkpoints.set_aside()
        damaged.forget()
    wait_for_all()
    state = checkpoints.load_newest(model) if resume else None
    if resume and state is None:
        state = load_earlier(output, model, solver.IMS_PER_BATCH)
    state = state or TrainingState()
    wait_for_all()
    if is_main:
        checkpoints.tidy(state.iteration)
        if state.config and (changes := changed_settings(state.config, cfg.dump())):
            logger.warning("settings that changed since the checkpoint: %s", "; ".join(changes))
        save_environment(cfg, output, model.device, process_share()[1])
    return state


def open_data(cfg: Config, pairs: SegmentationPairs, device: torch.device, start: int) -> DataLoader:
    """Open the endless stream of this process's training batches.

    Args:
        cfg: the configuration.
        pairs: the training images.
        device: where the batches go.
        start: number of images that all processes together have consumed.
    """
    rank, processes = process_share()
    return training_loader(
        pairs,
        training_transform(cfg, pairs.spec.ignore_label),
        images_at_a_time(cfg, processes),
        seed=cfg.SEED,
        workers=cfg.DATALOADER.NUM_WORKERS,
        start=start,
        rank=rank,
        world_size=processes,
        skip_damaged=cfg.DATALOADER.SKIP_DAMAGED,
        pinned=device.type == "cuda",
    )


def tell_of_start(cfg: Config, pairs: SegmentationPairs, device: torch.device, iteration: int) -> None:
    """Log what a run trains on, from which iteration, and how."""
    processes = process_share()[1]
    logger.info(
        "training on %d images of %s: iterations %d to %d of %d images each (%d processes × %d parts × %d), "
        "precision %s (%s), TF32 %s, device %s",
        *(len(pairs), pairs.spec.name, iteration, cfg.SOLVER.MAX_ITER, cfg.SOLVER.IMS_PER_BATCH),
        *(processes, cfg.SOLVER.ACCUMULATION_STEPS, images_at_a_time(cfg, processes)),
        *resolve_precision(cfg.SOLVER.PRECISION, device),
        *("allowed" if cfg.SOLVER.TF32 else "off", device),
    )
