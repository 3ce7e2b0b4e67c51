"""The configuration: loading, overriding and validation; its keys are in :mod:`err_seg.config.defaults`.

YAML files are short deltas on the defaults (``_BASE_`` names the file, or the files, they start from); ``KEY VALUE``
pairs come last. A relative path in a YAML file is looked for beside that file first. If nothing is there, folders and
files of data sets lie under ``DATASETS.ROOT``, and other paths in the working folder.
"""

import contextlib
import difflib
from ast import literal_eval
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import reduce
from os.path import abspath, expanduser, isdir, isfile
from pathlib import Path
from typing import Any

import yaml

from err_seg.config.constraints import Range
from err_seg.config.defaults import KEYS, Config, ranges_of
from err_seg.config.section import Section
from err_seg.plugins import SECTIONS, import_packages
from err_seg.utils.errors import ConfigError
from err_seg.utils.files import datasets_root

# of the grid of cost maps
STRIDE = 16

# where weights come from and where things lie; weights are identified by their digest, wherever they come from
NOT_OF_THE_NETWORK = (
    *("MODEL.WEIGHTS", "MODEL.CLIP.PRETRAINED", "MODEL.DEVICE", "MODEL.TEXT.CACHE_DIR"),
    *("MODEL.DISTILL.WEIGHTS", "MODEL.DISTILL.WEIGHT"),
)
OF_THE_NETWORK = ("INPUT.SIZE", "EXTRA")  # besides MODEL

# settings that name files and folders, also those of the entries of DATASETS.CUSTOM
FILE_KEYS = (
    *("MODEL.WEIGHTS", "MODEL.CLIP.NAME", "MODEL.CLIP.PRETRAINED", "MODEL.DISTILL.WEIGHTS"),
    *("vocabulary", "split", "seen"),
)
FOLDER_KEYS = ("DATASETS.ROOT", "image_dir", "label_dir")


def get_cfg(config_file: str | Path | None = None, overrides: Sequence[Any] = ()) -> Config:
    """Load a configuration, and import the packages that ``MODEL.IMPORTS`` names.

    Args:
        config_file: a YAML file, the name of one that is shipped ("err_seg_convnext_b", "mini/err_seg"), or ``None``
            for the defaults.
        overrides: ``[key, value, key, value, ...]``; values are taken as they are, or parsed where they are text.

    Raises:
        ConfigError: an unreadable file, an unknown key (with the nearest known one), a value of the wrong type or out
            of range, values that contradict each other, or a package that cannot be imported.
    """
    settings = [(key, value, "override") for key, value in override_pairs(overrides)]
    if config_file is not None:
        settings = _load_yaml(Path(expanduser(config_file))) + settings
    cfg = Config()
    for key, value, source in settings:
        if key.split(".")[0] == "EXTRA":
            _set_extra(cfg.EXTRA, key, value, source)
        else:
            _set(cfg, KEYS, key, value, source)
    validate(cfg)
    # folders stay relative: results do not depend on where the data sets are
    cfg.DATASETS.CUSTOM = found_in(datasets_root(cfg.DATASETS.ROOT), "DATASETS.CUSTOM", cfg.DATASETS.CUSTOM)
    cfg.EXTRA = {name: asdict(extra_section(cfg, name)) for name in cfg.EXTRA}
    return cfg


def extra_section(cfg: Config, name: str) -> Any:
    """Return the settings under ``EXTRA.<name>``, with their defaults: a section of the class registered for them.

    Raises:
        ConfigError: no imported package registers such a section, or a setting is unknown or wrong.
    """
    prefix, section = f"EXTRA.{name}.", SECTIONS.get(name)()
    keys = dict(ranges_of(section, prefix))
    for key, value in settings_of(cfg.EXTRA.get(name, {}), prefix, keys):
        _set(section, keys, key, value, "EXTRA", prefix)
    _check_ranges(dict(settings_of(section, prefix, keys)), keys)
    return section


def override_pairs(overrides: Any) -> list[tuple[str, Any]]:
    """Return ``[key, value, key, value, ...]`` as pairs.

    Raises:
        ConfigError: it is no such list.
    """
    if not isinstance(overrides, Sequence) or isinstance(overrides, str):
        raise ConfigError(f"overrides must be a list, [key, value, key, value, ...], not {overrides!r}")
    if wrong := [key for key in overrides[0::2] if not isinstance(key, str) or key.startswith("--")]:
        raise ConfigError(f"overrides are KEY VALUE pairs, behind all options; {wrong[0]!r} is no key")
    if len(overrides) % 2:
        raise ConfigError(f"overrides are KEY VALUE pairs; {overrides[-1]!r} has no value")
    return list(zip(overrides[0::2], overrides[1::2], strict=True))


def shipped_configs() -> Path:
    """Return the folder of the shipped YAML files: inside an installed package, or beside the package in a checkout."""
    package = Path(__file__).resolve().parents[1]
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"


def settings_of(
    tree: Section | Mapping[str, Any], prefix: str = "", keys: Mapping[str, Range] = KEYS
) -> Iterator[tuple[str, Any]]:
    """Yield the dotted key and value of each setting of a configuration, or of its YAML as loaded."""
    for name, value in tree.items():
        key = f"{prefix}{name}"
        if isinstance(value, (Section, Mapping)) and key not in keys:
            yield from settings_of(value, f"{key}.", keys)
        else:
            yield key, value


def network_settings(cfg: Config) -> dict[str, Any]:
    """Return the settings that predictions depend on besides weights: dotted key to value, JSON-able."""
    of_network = ((key, value) for key, value in settings_of(cfg) if key.startswith("MODEL.") or key in OF_THE_NETWORK)
    return {key: value for key, value in of_network if key not in NOT_OF_THE_NETWORK}


def completed(recorded: Mapping[str, Any], keys: Iterable[str]) -> dict[str, Any]:
    """Add those of some keys that recorded settings lack, at their defaults.

    An earlier version recorded them, and did what is the default of a key that it did not have.
    """
    defaults = dict(settings_of(Config()))
    return {**{key: defaults[key] for key in keys if key in defaults}, **recorded}


def _load_yaml(file: Path) -> list[tuple[str, Any, str]]:
    """Return the key, value and file of each setting, those of the bases first."""
    file = _find_yaml(file)
    try:
        return list(_read_yaml(file))
    except (yaml.YAMLError, OSError, TypeError, UnicodeDecodeError, RecursionError, ConfigError) as error:
        raise ConfigError(f"{file} is not a usable configuration: {error}") from error


def _find_yaml(file: Path, name: str = "") -> Path:
    """Return the path of a file, or of the shipped one of that name.

    Raises:
        ConfigError: there is neither.
    """
    shipped = shipped_configs() / f"{name or file}.yaml"
    if not file.is_file() and shipped.is_file():
        return shipped
    if not file.is_file():
        folder = file.parent if file.parent.is_dir() else Path()
        found = ", ".join(sorted(str(path) for path in folder.glob("*.yaml"))) or "no YAML file"
        names = ", ".join(sorted(path.stem for path in shipped_configs().glob("err_seg_*.yaml")))
        raise ConfigError(
            f"no configuration file {file}; {folder}/ holds {found}; shipped are {names} and mini/err_seg"
        )
    return file


def _read_yaml(file: Path) -> Iterator[tuple[str, Any, str]]:
    with file.open(encoding="utf-8") as text:
        tree = yaml.safe_load(text)
    if not isinstance(tree, dict):
        raise TypeError(f"{file} must hold keys with values, not {tree!r}")
    bases = tree.pop("_BASE_", [])
    for base in bases if isinstance(bases, list) else [bases]:
        yield from _read_yaml(_find_yaml(file.parent / expanduser(base), base))
    for key, value in settings_of(tree):
        yield key, found_in(file.parent, key, value, FOLDER_KEYS), str(file)


def found_in(folder: Path, key: str, value: Any, folder_keys: Sequence[str] = ()) -> Any:
    """Return the path of what a setting names, if that lies in a folder; else the setting as it is.

    Of the entries of ``DATASETS.CUSTOM`` this is done for each setting.
    """
    if key == "DATASETS.CUSTOM" and isinstance(value, list) and all(isinstance(entry, dict) for entry in value):
        return [{name: found_in(folder, name, part, folder_keys) for name, part in entry.items()} for entry in value]
    if not isinstance(value, str) or not value or key not in (*FILE_KEYS, *folder_keys):
        return value
    path = abspath(folder / expanduser(value))
    return path if (isfile if key in FILE_KEYS else isdir)(path) else value


def _set_extra(tree: dict[str, Any], key: str, value: Any, source: str) -> None:
    """Set ``EXTRA`` or something in it, leaf by leaf; what these are is checked when all are there."""
    try:
        for name, leaf in settings_of({key: value}, keys={}):
            _, *path, last = name.split(".")
            reduce(lambda inner, section: inner.setdefault(section, {}), path, tree)[last] = leaf
    except (ValueError, AttributeError, TypeError) as error:
        raise ConfigError(f"{key} ({source}): {value!r} does not fit EXTRA, sections of settings by name") from error


def _set(root: Section, keys: Mapping[str, Range], key: str, value: Any, source: str, prefix: str = "") -> None:
    """Set one setting, converted to the type of its default; ``prefix`` is what all keys begin with."""
    *path, leaf = key.removeprefix(prefix).split(".")
    if key not in keys:
        # the last part of a key is what people remember
        near = difflib.get_close_matches(key, keys, n=1, cutoff=0.6) or [k for k in keys if k.split(".")[-1] == leaf]
        known = f"its keys are {', '.join(keys)}" if prefix else "err_seg/config/defaults.py lists all keys"
        raise ConfigError(f"unknown key {key} ({source}); {f'did you mean {near[0]}?' if near else known}")
    section = reduce(getattr, path, root)
    setattr(section, leaf, _converted(key, value, getattr(section, leaf), source))


def _converted(key: str, value: Any, default: Any, source: str) -> Any:
    if isinstance(value, str) and type(default) is float:
        with contextlib.suppress(ValueError):  # also takes "inf"
            value = float(value)
    elif isinstance(value, str) and not isinstance(default, str):
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


def validate(cfg: Config) -> None:
    """Refuse values out of range and settings that contradict each other, naming the key.

    The packages of ``MODEL.IMPORTS`` are imported first, since they declare what is under ``EXTRA``.

    Raises:
        ConfigError: the first thing found wrong.
    """
    values = dict(settings_of(cfg))
    _check_ranges(values, KEYS)
    import_packages(cfg.MODEL.IMPORTS)
    for name in cfg.EXTRA:
        extra_section(cfg, name)

    def require(condition: bool, key: str, expected: str) -> None:
        if not condition:
            raise ConfigError(f"{key} must be {expected}, not {values[key]!r}")

    escf = cfg.MODEL.ESCF
    for key in ("INPUT.SIZE", "INPUT.CROP_SIZE"):
        side = values[key] // STRIDE
        for ratio in ("MODEL.ESCF.SSR_RATIO", "MODEL.ESCF.CSR_RATIO"):
            require(side % values[ratio] == 0, ratio, f"a divisor of the grid's side {side} ({key} / {STRIDE})")
    off = "MODEL.ESCF.ENABLED False switches both off"
    require(escf.SFM or escf.CFM or not escf.ENABLED, "MODEL.ESCF.SFM", f"True where MODEL.ESCF.CFM is False ({off})")
    dim = cfg.MODEL.COST_EMBEDDING.DIM
    require(dim % escf.NUM_HEADS == 0, "MODEL.ESCF.NUM_HEADS", f"a divisor of MODEL.COST_EMBEDDING.DIM = {dim}")
    tile, least = cfg.TEST.TILE, cfg.INPUT.SIZE // 32  # as err_seg.prediction.tiles.check_tile
    require(not 0 < tile < least, "TEST.TILE", f"0 (off), or at least {least} pixels, 1/32 of INPUT.SIZE")
    require(not (tile and cfg.TEST.AUG.ENABLED), "TEST.TILE", "0 (off) where TEST.AUG.ENABLED is True")
    terms = len(cfg.MODEL.LOSS.TERMS)
    require(len(cfg.MODEL.LOSS.TERM_WEIGHTS) in (0, terms), "MODEL.LOSS.TERM_WEIGHTS", f"empty or {terms} weights")


def _check_ranges(values: Mapping[str, Any], keys: Mapping[str, Range]) -> None:
    for key, allowed in keys.items():
        if not allowed.accepts(values[key]):
            raise ConfigError(f"{key} must be {allowed.expected}, not {values[key]!r}")
