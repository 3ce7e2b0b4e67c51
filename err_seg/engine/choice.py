"""Which engine trains: detectron2's loop or the plain one."""

import importlib
from pathlib import Path

from err_seg.config import ConfigError

ENGINES = ("auto", "plain", "detectron2")
INSTALL_DETECTRON2 = (
    "pip install --no-build-isolation "
    "'git+https://github.com/facebookresearch/detectron2.git@02b5c4e295e990042a714712c21dc79b731e8833'"
)


def choose_engine(wanted: str, *, resume_from: Path | None = None) -> tuple[str, str]:
    """Choose the engine of a run.

    Args:
        wanted: "plain", "detectron2", or "auto": that which began the run, else detectron2 where it can be imported.
        resume_from: the ``OUTPUT_DIR`` of a run that is to go on.

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
    return "detectron2", "as asked for" if wanted == "detectron2" else "which is installed"


def began(output: Path) -> str | None:
    """Tell by its newest checkpoint which engine began a run; ``None`` where there is none."""
    last = {
        "plain": [path.stat().st_mtime for path in output.glob("checkpoints/iter_*")],
        "detectron2": [path.stat().st_mtime for path in output.glob("last_checkpoint")],
    }
    times = {engine: max(found) for engine, found in last.items() if found}
    return max(times, key=lambda engine: times[engine]) if times else None
