"""The same configuration for detectron2: our keys in its tree, and back; and what its trainer cannot do."""

from typing import Any

from detectron2.config import CfgNode
from detectron2.config import get_cfg as detectron_defaults

from err_seg.config import Config, ConfigError, get_cfg, settings_of
from err_seg.d2.catalog import register_datasets
from err_seg.d2.weights import checked_weights, readable_weights
from err_seg.utils.device import resolve_device, resolve_precision

PLAIN_ONLY = (
    *("SOLVER.PARALLEL", "SOLVER.ACCUMULATION_STEPS", "SOLVER.COMPILE", "SOLVER.EMA.ENABLED"),
    "MODEL.DISTILL.WEIGHTS",
)
NOTHING: tuple[tuple[str, Any], ...] = (("SEED", -1), ("DATASETS.TRAIN", ()), ("DATASETS.TRAIN", []))


def add_err_seg_config(cfg: CfgNode) -> None:
    """Add ERR-Seg's keys and defaults (:mod:`err_seg.config.defaults`) to the tree of ``detectron2.config.get_cfg()``.

    Afterwards ``cfg.merge_from_file`` takes the YAML files of ``configs/``. ``MODEL.DEVICE`` becomes the best device
    there is, since detectron2 knows no "auto". ``INPUT.CROP``, which detectron2's own mapper reads, becomes a crop of
    ``INPUT.CROP_SIZE``.
    """
    _fill(cfg, Config())
    cfg.MODEL.BACKBONE.NAME = "CLIPBackbone"
    cfg.MODEL.SEM_SEG_HEAD.NAME = "ERRSegHead"
    cfg.INPUT.FORMAT = "RGB"


def to_detectron2(cfg: Config) -> CfgNode:
    """Translate a configuration of :func:`err_seg.get_cfg` into one for detectron2."""
    translated = detectron_defaults()
    add_err_seg_config(translated)
    _fill(translated, cfg)
    translated.MODEL.WEIGHTS = readable_weights(cfg.MODEL.WEIGHTS)
    translated.SOLVER.AMP.ENABLED = is_fp16(cfg)
    return translated


def is_fp16(cfg: Config) -> bool:
    """Whether detectron2's trainer must scale losses."""
    return resolve_precision(cfg.SOLVER.PRECISION, resolve_device(cfg.MODEL.DEVICE)).name == "fp16"


def check_detectron2_can(cfg: Config, processes: int) -> None:
    """Refuse settings of a training in so many processes that only the plain engine supports.

    Raises:
        ConfigError: there is such a setting; names its key.
    """
    settings, defaults = (dict(settings_of(tree)) for tree in (cfg, Config()))
    for key in PLAIN_ONLY:
        if (found := settings[key]) != (value := defaults[key]):
            raise ConfigError(f"{key} must be {value!r} with detectron2, not {found!r}; --engine plain takes it")
    device = resolve_device(cfg.MODEL.DEVICE).type if cfg.MODEL.DEVICE == "auto" else cfg.MODEL.DEVICE.split(":")[0]
    if device != "cuda" and cfg.SOLVER.PRECISION == "fp16":
        raise ConfigError('SOLVER.PRECISION "fp16" needs a GPU of CUDA; use "bf16" or "fp32"')
    if device != "cuda" and processes > 1:
        raise ConfigError(
            f"--num-gpus: detectron2 trains in {processes} processes on GPUs of CUDA alone, and MODEL.DEVICE is "
            f"{device}; use --engine plain"
        )


def opened(cfg: Config | CfgNode) -> Config:
    """Do :func:`from_detectron2`, and register the data sets under the names that the configuration uses."""
    own = from_detectron2(cfg)
    register_datasets(own.DATASETS.ROOT, own.DATASETS.CUSTOM)
    return own


def from_detectron2(cfg: Config | CfgNode) -> Config:
    """Take ERR-Seg's keys out of a configuration for detectron2, validated; one of ours comes back as it is.

    detectron2's ``SEED: -1`` and ``DATASETS.TRAIN: ()``, which say nothing, become our defaults.

    Raises:
        ConfigError: a key is missing or its value is wrong; names it.
    """
    if not isinstance(cfg, CfgNode):
        return cfg
    theirs, pairs = dict(settings_of(cfg)), []
    for key, _ in settings_of(Config()):
        if key not in theirs:
            raise ConfigError(f"the configuration has no {key}: call err_seg.d2.add_err_seg_config(cfg) first")
        value = theirs[key]
        if (key, value) not in NOTHING:
            pairs += [key, checked_weights(value) if key == "MODEL.WEIGHTS" else value]
    return get_cfg(None, pairs)


def _fill(cfg: CfgNode, own: Config) -> None:
    """Put our settings into detectron2's tree."""
    for key, value in settings_of(own):
        *path, leaf = key.split(".")
        node = cfg
        for name in path:
            node = node.setdefault(name, CfgNode())
        node[leaf] = value
    cfg.EXTRA = CfgNode(own.EXTRA)
    cfg.EXTRA.set_new_allowed(True)  # its keys are those of packages
    cfg.MODEL.DEVICE = str(resolve_device(own.MODEL.DEVICE))
    cfg.INPUT.CROP.ENABLED, cfg.INPUT.CROP.TYPE = True, "absolute"
    cfg.INPUT.CROP.SIZE = [own.INPUT.CROP_SIZE, own.INPUT.CROP_SIZE]
