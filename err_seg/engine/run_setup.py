"""How a training run computes, stops and reads its data, the same for both engines."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch.utils.data import DataLoader

from err_seg.config import Config
from err_seg.data import SegmentationPairs, TrainingTransform, training_loader
from err_seg.engine.checkpoints import Checkpoints
from err_seg.engine.parallel import activation_checkpointing, images_at_a_time
from err_seg.prediction.model import ERRSeg
from err_seg.utils.device import deterministic, tf32
from err_seg.utils.errors import TrainingError, translate_errors
from err_seg.utils.processes import one_writer, process_share
from err_seg.utils.signals import StopRequest, handling_stop_signals


@contextmanager
def run_context(cfg: Config, model: ERRSeg) -> Iterator[StopRequest]:
    """During a ``with`` block, be the one writer of ``OUTPUT_DIR``, compute as configured, turn signals into a
    ``StopRequest``, and translate errors.

    Raises:
        TrainingError: another run writes to ``OUTPUT_DIR``, a file could not be written, a pair could not be read, or a
            loader process was killed.
    """
    solver, stop = cfg.SOLVER, StopRequest()
    kept = Checkpoints(Path(cfg.OUTPUT_DIR), solver.CHECKPOINTS_KEPT).newest_text
    with (
        translate_errors(TrainingError, kept, "rerun with --resume"),
        one_writer(Path(cfg.OUTPUT_DIR), TrainingError),
        handling_stop_signals(stop, solver.STOP_SIGNALS),
        tf32(solver.TF32),
        deterministic(solver.DETERMINISTIC),
        activation_checkpointing(model, cfg),
    ):
        yield stop


def training_transform(cfg: Config, ignore_label: int) -> TrainingTransform:
    """Build the transform of training images from ``cfg.INPUT``."""
    return TrainingTransform(
        crop_size=cfg.INPUT.CROP_SIZE,
        min_sizes=cfg.INPUT.MIN_SIZE_TRAIN,
        max_size=cfg.INPUT.MAX_SIZE_TRAIN,
        color_jitter="ssd" if cfg.INPUT.COLOR_AUG_SSD else "none",
        flip_prob=cfg.INPUT.FLIP_PROB,
        single_category_max_area=cfg.INPUT.SINGLE_CATEGORY_MAX_AREA,
        ignore_label=ignore_label,
    )


def open_data(cfg: Config, pairs: SegmentationPairs, device: torch.device, start: int) -> DataLoader:
    """Open the endless stream of this process's training batches, after ``start`` images of all processes together."""
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
