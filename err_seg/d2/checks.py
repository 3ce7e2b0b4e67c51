"""Settings that detectron2's trainer cannot honour, refused before it starts."""

from typing import Any

from detectron2.config import get_cfg as detectron_defaults
from fvcore.common.config import CfgNode

from err_seg.config import Config, ConfigError, settings_of
from err_seg.device import resolve_device

ONLY: dict[str, Any] = {
    "SOLVER.PARALLEL": "ddp",
    "SOLVER.ACCUMULATION_STEPS": 1,
    "SOLVER.COMPILE": "",
    "SOLVER.EMA.ENABLED": False,
    "MODEL.DISTILL.WEIGHTS": "",
}


def check_detectron2_can(cfg: Config, processes: int) -> None:
    """Refuse settings of the training that only the plain engine can honour.

    Args:
        cfg: the plain engine's configuration.
        processes: that train together.

    Raises:
        ConfigError: there is one; names the key.
    """
    settings, device = dict(settings_of(cfg)), cfg.MODEL.DEVICE.split(":")[0]
    if device == "auto":
        device = resolve_device(device).type
    for key, value in ONLY.items():
        if settings[key] != value:
            raise ConfigError(
                f"{key} must be {value!r} with detectron2, not {settings[key]!r}; --engine plain takes it"
            )
    if device != "cuda":
        if cfg.SOLVER.PRECISION == "fp16":
            raise ConfigError('SOLVER.PRECISION "fp16" needs a GPU of CUDA; use "bf16" or "fp32"')
        if processes > 1:
            raise ConfigError(
                f"--num-gpus: detectron2 trains in {processes} processes on GPUs of CUDA alone, and MODEL.DEVICE is "
                f"{device}; use --engine plain"
            )


def check_keys(cfg: CfgNode) -> None:
    """Refuse what detectron2's own keys allow and :class:`err_seg.d2.Trainer` does not.

    Args:
        cfg: detectron2's configuration.

    Raises:
        ConfigError: there is such a value; names the key.
    """
    if not cfg.DATASETS.TRAIN:
        raise ConfigError("DATASETS.TRAIN must be a list of one data set to train, not empty")
    if cfg.SOLVER.AMP.ENABLED and cfg.SOLVER.PRECISION in ("fp32", "bf16"):
        raise ConfigError(
            f'SOLVER.AMP.ENABLED contradicts SOLVER.PRECISION "{cfg.SOLVER.PRECISION}", which is what counts: set it '
            'to "fp16"'
        )


def check_schedule_keys(cfg: CfgNode) -> None:
    """Refuse keys of detectron2's own schedules that were set where the plain engine's count.

    Args:
        cfg: detectron2's configuration.

    Raises:
        ConfigError: there is one; names the key.
    """
    defaults = detectron_defaults().SOLVER
    for key in ("STEPS", "GAMMA"):
        if cfg.SOLVER[key] != defaults[key]:
            raise ConfigError(
                f"SOLVER.{key} does not count with err_seg.d2.Trainer, whose schedules know no steps; leave it at "
                f"{defaults[key]!r}, or override Trainer.build_lr_scheduler"
            )
