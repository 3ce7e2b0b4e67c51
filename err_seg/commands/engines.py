"""The choice between the engines: detectron2's loop or the plain one."""

import importlib

from err_seg.config import Config, ConfigError


def choose_engine(wanted: str, *, training: Config | None = None, processes: int = 1) -> tuple[str, str]:
    """Choose the engine of a run; both continue with either's runs.

    Args:
        wanted: "plain", "detectron2", or "auto": detectron2 where it can be imported and train so.
        training: the configuration of a run that trains.
        processes: in how many.

    Returns:
        "plain" or "detectron2", and why, for the log.

    Raises:
        ConfigError: detectron2 is wanted and not there.
    """
    if wanted == "plain":
        return wanted, "as asked for"
    try:
        importlib.import_module("err_seg.d2")
    except ImportError as error:
        if wanted == "detectron2":
            raise ConfigError(f"--engine detectron2: {error}") from error
        return "plain", "since detectron2 is not installed"
    if wanted == "detectron2":
        return wanted, "as asked for"
    if training is not None:
        try:
            importlib.import_module("err_seg.d2.checks").check_detectron2_can(training, processes)
        except ConfigError as error:
            return "plain", f"since with detectron2: {error}"
    return "detectron2", "which is installed"
