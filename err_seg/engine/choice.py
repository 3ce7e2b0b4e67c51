"""Which engine trains: detectron2's loop or the plain one."""

import importlib
from pathlib import Path

from fvcore.common.config import CfgNode

from err_seg.config import ConfigError, settings_of
from err_seg.device import resolve_device

INSTALL_DETECTRON2 = (
    "pip install --no-build-isolation "
    "'git+https://github.com/facebookresearch/detectron2.git@02b5c4e295e990042a714712c21dc79b731e8833'"
)


def choose_engine(
    wanted: str, *, resume_from: Path | None = None, training: CfgNode | None = None, processes: int = 1
) -> tuple[str, str]:
    """Choose the engine of a run.

    Args:
        wanted: "plain", "detectron2", or "auto": that which began the run, else detectron2 where it can be imported and
            train so.
        resume_from: the ``OUTPUT_DIR`` of a run that is to go on.
        training: the configuration of a run that trains.
        processes: in how many.

    Returns:
        "plain" or "detectron2", and why, for the log.

    Raises:
        ConfigError: detectron2 is wanted and not there, or the run was begun by the other engine.
    """
    begun = began(resume_from) if resume_from is not None else None
    if wanted != "auto" and begun not in (None, wanted):
        raise ConfigError(
            f"--engine {wanted}: the run in {resume_from} was begun by --engine {begun}; resume it with that, or start "
            "anew without --resume"
        )
    if wanted == "plain" or (wanted == "auto" and begun == "plain"):
        return "plain", "as asked for" if wanted == "plain" else "which began this run"
    try:
        importlib.import_module("err_seg.d2")
    except ImportError as error:
        if wanted == "detectron2" or begun == "detectron2":
            raise ConfigError(f"--engine detectron2: {error}") from error
        return "plain", "since detectron2 is not installed"
    if wanted == "detectron2":
        return "detectron2", "as asked for"
    if begun == "detectron2":
        return "detectron2", "which began this run"
    try:
        if training is not None:
            check_detectron2_can(training, processes)
    except ConfigError as error:
        return "plain", f"since with detectron2: {error}"
    return "detectron2", "which is installed"


def check_detectron2_can(cfg: CfgNode, processes: int) -> None:
    """Refuse settings of the training that only the plain engine can honour.

    Args:
        cfg: the plain engine's configuration.
        processes: that train together.

    Raises:
        ConfigError: there is one; names the key.
    """
    solver, device = cfg.SOLVER, cfg.MODEL.DEVICE.split(":")[0]
    if device == "auto":
        device = resolve_device(device).type
    only = {"PARALLEL": "ddp", "ACCUMULATION_STEPS": 1, "COMPILE": "", "EMA.ENABLED": False}
    settings = dict(settings_of(solver))
    for key, value in only.items():
        if settings[key] != value:
            raise ConfigError(
                f"SOLVER.{key} must be {value!r} with detectron2, not {settings[key]!r}; --engine plain takes it"
            )
    if device != "cuda":
        if solver.PRECISION == "fp16":
            raise ConfigError('SOLVER.PRECISION "fp16" needs a GPU of CUDA; use "bf16" or "fp32"')
        if processes > 1:
            raise ConfigError(
                f"--num-gpus: detectron2 trains in {processes} processes on GPUs of CUDA alone, and MODEL.DEVICE is "
                f"{device}; use --engine plain"
            )


def began(output: Path) -> str | None:
    """Tell by its newest checkpoint which engine began a run; ``None`` where there is none."""
    last = {
        "plain": [path.stat().st_mtime for path in output.glob("checkpoints/iter_*")],
        "detectron2": [path.stat().st_mtime for path in output.glob("last_checkpoint")],
    }
    times = {engine: max(found) for engine, found in last.items() if found}
    return max(times, key=lambda engine: times[engine]) if times else None
