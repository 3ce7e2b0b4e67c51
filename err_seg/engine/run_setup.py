"""What precedes a training run, the same for both engines: its folder, how it computes and reads data, its facts."""

import importlib.util
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader

from err_seg.config import Config, ConfigError
from err_seg.data import SegmentationPairs, TrainingTransform, training_loader
from err_seg.engine.checkpoints import Checkpoints
from err_seg.engine.parallel import activation_checkpointing, images_at_a_time
from err_seg.plugins import LOSS_TERMS, METRICS, TRANSFORMS, version_of
from err_seg.prediction.model import ERRSeg
from err_seg.utils.device import deterministic, resolve_precision, tf32
from err_seg.utils.disk import size_text
from err_seg.utils.errors import TrainingError, translate_errors
from err_seg.utils.processes import one_writer, process_share
from err_seg.utils.signals import StopRequest, handling_stop_signals
from err_seg.version import __version__


def check_settings(cfg: Config) -> None:
    """Check the settings of a run before it writes anything.

    Raises:
        ConfigError: images cannot be shared out evenly, there is nothing to evaluate on, a part by name is not
            registered, or a tool that the run is to be logged to is not installed; names the key.
    """
    images_at_a_time(cfg, process_share()[1])
    parts = ((LOSS_TERMS, cfg.MODEL.LOSS.TERMS), (TRANSFORMS, cfg.INPUT.TRANSFORMS), (METRICS, cfg.TEST.METRICS))
    for registry, names in parts:
        for name in names:
            registry.get(name)
    if cfg.TEST.EVAL_PERIOD and not (cfg.DATASETS.VAL or cfg.DATASETS.TEST):
        raise ConfigError("TEST.EVAL_PERIOD needs something to evaluate on: DATASETS.VAL and DATASETS.TEST are empty")
    project = cfg.LOG.WANDB_PROJECT
    if project and importlib.util.find_spec("wandb") is None:
        raise ConfigError(
            f"LOG.WANDB_PROJECT = {project!r} needs the package wandb: pip install wandb, or switch it off"
        )


def check_disk_space(cfg: Config, model: nn.Module, *, resume: bool = False) -> None:
    """Make ``OUTPUT_DIR``, and check before a run that its files fit on that disk.

    AdamW adds two moments for each trainable number, ``SOLVER.EMA`` an average. With ``resume``, checkpoints that exist
    already count among those that the run needs space for.

    Raises:
        TrainingError: the disk has too little space.
    """
    output, solver = Path(cfg.OUTPUT_DIR), cfg.SOLVER
    output.mkdir(parents=True, exist_ok=True)
    # on disk at once at most, including the one being written
    checkpoints = min(solver.CHECKPOINTS_KEPT + 1, -(-solver.MAX_ITER // solver.CHECKPOINT_PERIOD))
    best = cfg.TEST.EVAL_PERIOD > 0
    weights = sum(4 * p.numel() for p in model.parameters())
    moments = sum((12 if solver.EMA.ENABLED else 8) * p.numel() for p in model.parameters() if p.requires_grad)
    there = (output / "checkpoints").glob("iter_*/*") if resume else ()
    present = sum(file.stat().st_size for file in there)
    needed = checkpoints * (weights + moments) + (weights * 2 if best else weights) - present
    free = shutil.disk_usage(output).free
    if free < needed:
        raise TrainingError(
            f"OUTPUT_DIR {output} has {size_text(free)} free, the run needs {size_text(needed)}: {checkpoints} "
            f"checkpoint{'s' * (checkpoints > 1)} of {size_text(weights + moments)} and the final {'and best ' * best}"
            f"weights of {size_text(weights)}{' each' * best}"
            f"{f', less {size_text(present)} that are there' if present else ''}. Free some "
            "space, choose another OUTPUT_DIR, or keep fewer (SOLVER.CHECKPOINTS_KEPT)"
        )


@contextmanager
def run_context(cfg: Config, model: ERRSeg) -> Iterator[StopRequest]:
    """During a ``with`` block, be the one writer of ``OUTPUT_DIR``, compute as configured, and record stop signals.

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
    """Build the transform of training images from ``cfg.INPUT``.

    Raises:
        ConfigError: no imported package registers a transform that ``INPUT.TRANSFORMS`` names.
    """
    return TrainingTransform(
        crop_size=cfg.INPUT.CROP_SIZE,
        min_sizes=cfg.INPUT.MIN_SIZE_TRAIN,
        max_size=cfg.INPUT.MAX_SIZE_TRAIN,
        color_jitter="ssd" if cfg.INPUT.COLOR_AUG_SSD else "none",
        flip_prob=cfg.INPUT.FLIP_PROB,
        single_category_max_area=cfg.INPUT.SINGLE_CATEGORY_MAX_AREA,
        ignore_label=ignore_label,
        further=[TRANSFORMS.get(name)(cfg) for name in cfg.INPUT.TRANSFORMS],
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


PACKAGES = ("torch", "torchvision", "open_clip_torch", "timm", "accelerate", "numpy", "pillow", "safetensors")


def environment(cfg: Config, device: torch.device, processes: int) -> dict[str, Any]:
    """Return the facts for ``environment.json``; the state of the code is ``None`` outside a git repository."""
    is_cuda = device.type == "cuda"
    precision = resolve_precision(cfg.SOLVER.PRECISION, device)
    return {
        "err_seg": __version__,
        "git": git_state(Path(__file__).parent),
        "command": sys.argv,
        "seed": cfg.SEED,
        "processes": processes,
        "device": torch.cuda.get_device_name(device) if is_cuda else str(device),
        "precision": precision.name,
        "precision_reason": precision.reason,
        "tf32": cfg.SOLVER.TF32,
        "deterministic": cfg.SOLVER.DETERMINISTIC,
        "cuda": torch.version.cuda if is_cuda else None,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: version_of(name) for name in PACKAGES},
    }


def git_state(folder: Path) -> dict[str, Any] | None:
    """Return a folder's commit and the files that differ from it, or ``None`` without git or a repository."""
    options: dict[str, Any] = {"cwd": folder, "text": True, "stderr": subprocess.DEVNULL, "timeout": 20}
    try:
        commit = subprocess.check_output(["git", "rev-parse", "HEAD"], **options).strip()
        changed = subprocess.check_output(["git", "status", "--porcelain"], **options).splitlines()
    except (OSError, subprocess.SubprocessError):
        return None
    return {"commit": commit, "changed": changed}
