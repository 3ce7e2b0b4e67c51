"""Settings that detectron2's trainer cannot honour, refused before it starts."""

from detectron2.config import get_cfg as detectron_defaults
from detectron2.utils import comm
from fvcore.common.config import CfgNode

from err_seg.config import ConfigError
from err_seg.engine.choice import check_detectron2_can
from err_seg.engine.parallel import pictures_at_a_time
from err_seg.engine.run_log import check_trackers


def check_settings(cfg: CfgNode) -> None:
    """Refuse settings that detectron2's trainer cannot honour.

    Args:
        cfg: the plain engine's configuration.

    Raises:
        ConfigError: there is one; names the key.
    """
    processes = comm.get_world_size()
    check_detectron2_can(cfg, processes)
    pictures_at_a_time(cfg, processes)
    check_trackers(cfg)


def check_detectron2_keys(cfg: CfgNode) -> None:
    """Refuse what detectron2's own keys allow and :class:`err_seg.d2.Trainer` does not.

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
