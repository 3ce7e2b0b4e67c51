"""Settings that detectron2's trainer cannot honour, refused before it starts."""

from err_seg.config import Config, ConfigError, settings_of
from err_seg.utils.device import resolve_device

SOLVER = "SOLVER.PARALLEL", "SOLVER.ACCUMULATION_STEPS", "SOLVER.COMPILE", "SOLVER.EMA.ENABLED"
PLAIN = (*SOLVER, "MODEL.DISTILL.WEIGHTS")  # what only the plain engine does


def check_detectron2_can(cfg: Config, processes: int) -> None:
    """Refuse settings of the training that only the plain engine can honour.

    Args:
        cfg: the plain engine's configuration.
        processes: how many train together.

    Raises:
        ConfigError: there is such a setting; names its key.
    """
    settings, defaults = (dict(settings_of(tree)) for tree in (cfg, Config()))
    for key in PLAIN:
        if (found := settings[key]) != (value := defaults[key]):
            raise ConfigError(f"{key} must be {value!r} with detectron2, not {found!r}; --engine plain takes it")
    device = cfg.MODEL.DEVICE.split(":")[0]
    if device == "auto":
        device = resolve_device(device).type
    if device != "cuda" and cfg.SOLVER.PRECISION == "fp16":
        raise ConfigError('SOLVER.PRECISION "fp16" needs a GPU of CUDA; use "bf16" or "fp32"')
    if device != "cuda" and processes > 1:
        raise ConfigError(
            f"--num-gpus: detectron2 trains in {processes} processes on GPUs of CUDA alone, and MODEL.DEVICE is "
            f"{device}; use --engine plain"
        )
