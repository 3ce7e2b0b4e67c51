"""The configuration: loading, overriding and validation; its keys are in :mod:`err_seg.defaults`.

The tree is a ``CfgNode`` of fvcore, the class that detectron2's own node derives from. YAML files are short deltas on
the defaults (``_BASE_`` names the file they start from); ``KEY VALUE`` pairs come last.
"""

import contextlib
import difflib
from ast import literal_eval
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from fvcore.common.config import CfgNode

from err_seg.defaults import default_cfg


class ConfigError(ValueError):
    """A configuration that cannot be used; the message names the key, what was expected and what was found."""


def get_cfg(config_file: str | Path | None = None, overrides: Sequence[Any] = ()) -> CfgNode:
    """Load a configuration.

    Args:
        config_file: a YAML file, or ``None`` for the defaults.
        overrides: ``[key, value, key, value, ...]``; values are taken as they are, or parsed where they are text.

    Raises:
        ConfigError: an unreadable file, an unknown key (with the nearest known one), a value of the wrong type or out
            of range, or values that contradict each other.
    """
    cfg = default_cfg()
    if config_file is not None:
        for key, value in _leaves(_load_yaml(Path(config_file)), known=cfg):
            _set(cfg, key, value, str(config_file))
    if len(overrides) % 2:
        raise ConfigError(f"overrides are KEY VALUE pairs; {overrides[-1]!r} has no value")
    for key, value in zip(overrides[0::2], overrides[1::2], strict=True):
        _set(cfg, key, value, "override")
    validate(cfg)
    return cfg


def _load_yaml(file: Path) -> dict[str, Any]:
    if not file.is_file():
        folder = file.parent if file.parent.is_dir() else Path()
        found = ", ".join(sorted(str(path) for path in folder.glob("*.yaml"))) or "no YAML file"
        raise ConfigError(f"no configuration file {file}; {folder}/ holds {found}")
    try:
        return CfgNode.load_yaml_with_base(str(file)) or {}
    except (yaml.YAMLError, AssertionError, OSError, TypeError) as error:
        raise ConfigError(f"{file} is not a usable configuration: {error}") from error


def settings_of(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the dotted key and value of each setting of a configuration, or of its YAML as loaded."""
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from settings_of(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _leaves(tree: dict[str, Any], known: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the dotted key and value of each setting; a mapping counts as a setting where the defaults have none."""
    for name, value in tree.items():
        child = known.get(name) if isinstance(known, CfgNode) else None
        if isinstance(value, dict) and (isinstance(child, CfgNode) or child is None):
            yield from _leaves(value, child, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _set(cfg: CfgNode, key: str, value: Any, source: str) -> None:
    """Set one setting, converted to the type of its default."""
    *path, leaf = str(key).split(".")
    node = cfg
    for name in path:
        node = node.get(name) if isinstance(node, CfgNode) else None
    if not isinstance(node, CfgNode) or leaf not in node or isinstance(node[leaf], CfgNode):
        known = [name for name, _ in _leaves(cfg, known=cfg)]
        # the last part of a key is what people remember
        near = difflib.get_close_matches(key, known, n=1, cutoff=0.6) or [k for k in known if k.split(".")[-1] == leaf]
        hint = f"did you mean {near[0]}?" if near else "err_seg/defaults.py lists all keys"
        raise ConfigError(f"unknown key {key} ({source}); {hint}")
    node[leaf] = _converted(key, value, node[leaf], source)


def _converted(key: str, value: Any, default: Any, source: str) -> Any:
    if isinstance(value, str) and not isinstance(default, str):
        with contextlib.suppress(ValueError, SyntaxError):  # reported as a wrong type below
            value = literal_eval(value)
    if isinstance(default, float) and type(value) is int:
        return float(value)
    if isinstance(default, list) and isinstance(value, (list, tuple)):
        if not default:
            return list(value)
        return [_converted(f"each entry of {key}", entry, default[0], source) for entry in value]
    if type(value) is not type(default):
        expected = type(default).__name__
        raise ConfigError(f"{key} ({source}) must be of type {expected} like {default!r}, not {value!r}")
    return value


def validate(cfg: CfgNode) -> None:
    """Refuse values out of range and settings that contradict each other, naming the key.

    Raises:
        ConfigError: the first thing found wrong.
    """

    def require(condition: bool, key: str, expected: str) -> None:
        if not condition:
            value: Any = cfg
            for name in key.split("."):
                value = value[name]
            raise ConfigError(f"{key} must be {expected}, not {value!r}")

    model, clip, escf, gud = cfg.MODEL, cfg.MODEL.CLIP, cfg.MODEL.ESCF, cfg.MODEL.GUD
    for key in ("INPUT.SIZE", "INPUT.CROP_SIZE"):
        size = cfg.INPUT[key.split(".")[1]]
        require(size > 0 and size % 32 == 0, key, "a positive multiple of 32")
        for ratio in ("SSR_RATIO", "CSR_RATIO"):
            require(escf[ratio] >= 1, f"MODEL.ESCF.{ratio}", "at least 1 (1 is off)")
            fits = (size // 16) % escf[ratio] == 0
            require(fits, f"MODEL.ESCF.{ratio}", f"a divisor of the grid's side {size // 16} ({key} / 16)")
    choices = {
        "MODEL.CLIP.IMAGE_TUNING": (clip.IMAGE_TUNING, ("none", "weight", "full")),
        "MODEL.CLIP.TEXT_TUNING": (clip.TEXT_TUNING, ("none", "weight", "full")),
        "MODEL.TEXT.SYNONYMS": (model.TEXT.SYNONYMS, ("first", "average")),
        "MODEL.HSM.STAGE4_GRADIENT": (model.HSM.STAGE4_GRADIENT, ("both", "E16", "E32")),
        "SOLVER.PRECISION": (cfg.SOLVER.PRECISION, ("auto", "fp32", "fp16", "bf16")),
        "SOLVER.PARALLEL": (cfg.SOLVER.PARALLEL, ("ddp", "fsdp")),
        "TEST.PRECISION": (cfg.TEST.PRECISION, ("auto", "fp32", "fp16", "bf16")),
    }
    for key, (value, allowed) in choices.items():
        require(value in allowed, key, "one of " + ", ".join(map(repr, allowed)))

    require(model.CRM.NUM_KEPT >= 0, "MODEL.CRM.NUM_KEPT", "at least 0 (0: the benchmark's own)")
    require(model.CRM.RANK_DECAY >= 0, "MODEL.CRM.RANK_DECAY", "at least 0")
    positive = {
        "MODEL.CRM.NUM_KEPT_TRAIN": model.CRM.NUM_KEPT_TRAIN,
        "MODEL.CRM.NUM_RANKS": model.CRM.NUM_RANKS,
        "MODEL.ESCF.NUM_LAYERS": escf.NUM_LAYERS,
        "MODEL.ESCF.NUM_HEADS": escf.NUM_HEADS,
        "SOLVER.IMS_PER_BATCH": cfg.SOLVER.IMS_PER_BATCH,
        "SOLVER.MAX_ITER": cfg.SOLVER.MAX_ITER,
        "SOLVER.ACCUMULATION_STEPS": cfg.SOLVER.ACCUMULATION_STEPS,
        "SOLVER.CHECKPOINT_PERIOD": cfg.SOLVER.CHECKPOINT_PERIOD,
        "SOLVER.CHECKPOINTS_KEPT": cfg.SOLVER.CHECKPOINTS_KEPT,
        "LOG.PERIOD": cfg.LOG.PERIOD,
        "TEST.BATCH_SIZE": cfg.TEST.BATCH_SIZE,
        "TEST.PROGRESS_PERIOD": cfg.TEST.PROGRESS_PERIOD,
    }
    for key, value in positive.items():
        require(value > 0, key, "positive")
    require(len(cfg.DATASETS.TRAIN) == 1, "DATASETS.TRAIN", "a list of one data set")
    require(cfg.SEED >= 0, "SEED", "at least 0")
    require(cfg.VIS_PERIOD >= 0, "VIS_PERIOD", "at least 0 (0 is off)")
    require(set(cfg.TEST.SAVE) <= {"png", "rle", "overlay"}, "TEST.SAVE", "a list of any of 'png', 'rle', 'overlay'")
    scales = cfg.TEST.AUG.SCALES
    is_scale = [isinstance(scale, (int, float)) and scale > 0 for scale in scales]
    require(all(is_scale) and 1 in scales, "TEST.AUG.SCALES", "a list of positive numbers that holds 1")

    off = "MODEL.ESCF.ENABLED False switches both off"
    require(escf.SFM or escf.CFM or not escf.ENABLED, "MODEL.ESCF.SFM", f"True where MODEL.ESCF.CFM is False ({off})")
    divides = model.COST_EMBEDDING.DIM % escf.NUM_HEADS == 0
    require(divides, "MODEL.ESCF.NUM_HEADS", f"a divisor of MODEL.COST_EMBEDDING.DIM = {model.COST_EMBEDDING.DIM}")

    require(len(gud.DIMS) == 3 and all(d > 0 and d % 8 == 0 for d in gud.DIMS), "MODEL.GUD.DIMS", "3 multiples of 8")
    three = len(gud.GUIDANCE_DIMS) == 3 and all(d >= 0 for d in gud.GUIDANCE_DIMS)
    require(three, "MODEL.GUD.GUIDANCE_DIMS", "3 numbers, each at least 0")
    require(gud.KERNEL_SIZE % 2 == 1, "MODEL.GUD.KERNEL_SIZE", "odd")
