"""The same configuration for detectron2: our keys in its tree, and back."""

from typing import Any

from detectron2.config import CfgNode as DetectronNode
from detectron2.config import get_cfg as detectron_defaults
from fvcore.common.config import CfgNode

from err_seg.config import ConfigError, get_cfg, settings_of
from err_seg.d2.weights import checked_weights, readable_weights
from err_seg.defaults import default_cfg
from err_seg.device import resolve_device, resolve_precision

NOTHING: tuple[tuple[str, Any], ...] = (("SEED", -1), ("DATASETS.TRAIN", ()), ("DATASETS.TRAIN", []))


def add_err_seg_config(cfg: DetectronNode) -> None:
    """Add ERR-Seg's keys and defaults (:mod:`err_seg.defaults`) to the tree of ``detectron2.config.get_cfg()``.

    Afterwards ``cfg.merge_from_file`` takes the YAML files of ``configs/``. ``MODEL.DEVICE`` becomes the best device
    there is, since detectron2 knows no "auto". ``INPUT.CROP``, which detectron2's own mapper reads, becomes a crop of
    ``INPUT.CROP_SIZE``.
    """
    for key, value in settings_of(default_cfg()):
        _set(cfg, key, value)
    cfg.MODEL.DEVICE = str(resolve_device("auto"))
    cfg.MODEL.BACKBONE.NAME = "CLIPBackbone"
    cfg.MODEL.SEM_SEG_HEAD.NAME = "ERRSegHead"
    cfg.INPUT.FORMAT = "RGB"
    _set_crop(cfg)


def to_detectron2(cfg: CfgNode) -> DetectronNode:
    """Translate a configuration of :func:`err_seg.get_cfg` into one for detectron2."""
    translated = detectron_defaults()
    add_err_seg_config(translated)
    for key, value in settings_of(cfg):
        _set(translated, key, value)
    _set_crop(translated)
    device = resolve_device(cfg.MODEL.DEVICE)
    translated.MODEL.DEVICE = str(device)
    translated.MODEL.WEIGHTS = readable_weights(cfg.MODEL.WEIGHTS)
    translated.SOLVER.AMP.ENABLED = resolve_precision(cfg.SOLVER.PRECISION, device).name == "fp16"
    return translated


def from_detectron2(cfg: CfgNode) -> CfgNode:
    """Take ERR-Seg's keys out of a configuration for detectron2, validated.

    detectron2's ``SEED: -1`` and ``DATASETS.TRAIN: ()``, which say nothing, become our defaults.

    Raises:
        ConfigError: a key is missing or its value is wrong; names it.
    """
    pairs: list[Any] = []
    for key, _ in settings_of(default_cfg()):
        value: Any = cfg
        for name in key.split("."):
            if name not in value:
                raise ConfigError(f"the configuration has no {key}: call err_seg.d2.add_err_seg_config(cfg) first")
            value = value[name]
        if (key, value) in NOTHING:
            continue
        pairs += [key, checked_weights(value) if key == "MODEL.WEIGHTS" else value]
    return get_cfg(None, pairs)


def _set_crop(cfg: DetectronNode) -> None:
    cfg.INPUT.CROP.ENABLED, cfg.INPUT.CROP.TYPE = True, "absolute"
    cfg.INPUT.CROP.SIZE = [cfg.INPUT.CROP_SIZE, cfg.INPUT.CROP_SIZE]


def _set(cfg: DetectronNode, key: str, value: Any) -> None:
    *path, leaf = key.split(".")
    node = cfg
    for name in path:
        node = node.setdefault(name, DetectronNode())
    node[leaf] = value
