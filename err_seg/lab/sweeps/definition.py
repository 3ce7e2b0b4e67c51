"""A sweep's YAML file: variants of a configuration, seeds, and the paper's values.

::

    title: "Table V: without one of the modules"
    base: err_seg_convnext_b                  # a file, relative to this one, or the name of a shipped one
    seeds: [0]                                # default
    settings: {MODEL.TEXT.SYNONYMS: average}  # of all variants; default: none
    variants:                                 # the first is what the others are compared with
      ERR-Seg:
        paper: {A-847: 13.9, PC-459: 20.5}    # the paper's values, default: none
      w/o HSM:
        settings: {MODEL.HSM.ENABLED: False}
        paper: {A-847: 13.3, PC-459: 19.3}
    mean: true                                # a last row: the mean of all variants but the first; default: none
    plot: {x: MODEL.CRM.NUM_KEPT, label: K}   # a figure over a swept setting; default: none
    cost: ade20k_150_val                      # columns of cost, with this vocabulary and its K; default: none
    note: What the reader of the results should know, in Markdown.
    mini:                                     # the same on the miniature world; keys given here replace those above,
      base: ../mini/sweep.yaml                # and single keys of settings
      seeds: [0, 1, 2]
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from err_seg.config.loading import FOLDER_KEYS, found_in, shipped_configs
from err_seg.utils.messages import did_you_mean

COMMON_KEYS = ("base", "seeds", "settings", "variants", "mean", "plot", "cost", "note")
SWEEP_KEYS = ("title", "mini", *COMMON_KEYS)
VARIANT_KEYS = ("settings", "paper")
PLOT_KEYS = ("x", "label", "log")


class SweepError(ValueError):
    """A sweep that is declared wrongly; the message names file and key."""


class NoMiniSweep(SweepError):
    """A sweep that is for the real data alone."""


@dataclass(frozen=True)
class Variant:
    """One row of a table: its title, its settings on top of the sweep's, and the paper's value in each column."""

    name: str
    settings: dict[str, Any] = field(default_factory=dict)
    paper: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Plot:
    """A figure over a swept setting: its key, the axis's label, and whether the axis is logarithmic."""

    x: str
    label: str
    log: bool = False


@dataclass(frozen=True)
class Sweep:
    """A table: variants × seeds; its fields are the keys of the file.

    ``name`` is the file's, with "-mini" appended for the miniature world's (``is_mini``). The first of the variants is
    what the others are compared with; each is trained once with each seed. ``plot`` is ``None`` and ``cost`` "" where
    the file has none.
    """

    name: str
    title: str
    file: Path
    base: Path
    settings: dict[str, Any]
    variants: tuple[Variant, ...]
    seeds: tuple[int, ...]
    plot: Plot | None
    cost: str
    note: str
    is_mini: bool
    has_mean: bool = False


def load_sweep(file: str | Path, *, mini: bool = False) -> Sweep:
    """Read a sweep's YAML file.

    With ``mini``, the keys of the file's ``mini`` section replace its own; of ``settings``, single keys.

    Raises:
        SweepError: no such file, an unknown or missing key, a value of the wrong kind; names it.
    """
    file = Path(file)
    if not file.is_file():
        near = ", ".join(sorted(str(path) for path in file.parent.glob("*.yaml"))) or "no YAML file"
        raise SweepError(f"no sweep {file}; its folder holds {near}")
    try:
        tree = yaml.safe_load(file.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise SweepError(f"{file} is not YAML: {error}") from error
    entries = _mapping(tree, f"{file}", SWEEP_KEYS)
    published = _variants(entries.get("variants"), f"{file}: variants")
    variants, settings = published, _mapping(entries.get("settings", {}), f"{file}: settings")
    if mini:
        if "mini" not in entries:
            raise NoMiniSweep(f"{file} has no entry 'mini', so it has nothing to run on the miniature world")
        own = _mapping(entries["mini"], f"{file}: mini", COMMON_KEYS)
        entries |= own
        settings |= _mapping(own.get("settings", {}), f"{file}: mini: settings")
        variants = _variants(own["variants"], f"{file}: mini: variants", published) if "variants" in own else published
    for key in ("title", "base"):
        if not isinstance(entries.get(key), str):
            raise SweepError(f"{file}: {key} must be text, not {entries.get(key)!r}")
    shipped, base = shipped_configs() / f"{entries['base']}.yaml", file.parent / entries["base"]

    def beside(tree: Mapping[str, Any]) -> dict[str, Any]:
        return {key: found_in(file.parent, key, value, FOLDER_KEYS) for key, value in tree.items()}

    return Sweep(
        name=file.stem + ("-mini" if mini else ""),
        title=entries["title"],
        file=file,
        base=shipped if shipped.is_file() and not base.is_file() else base,
        settings=beside(settings),
        variants=tuple(replace(variant, settings=beside(variant.settings)) for variant in variants),
        seeds=_seeds(entries.get("seeds", [0]), f"{file}: seeds"),
        plot=_plot(entries["plot"], f"{file}: plot") if entries.get("plot") else None,
        cost=str(entries.get("cost", "")),
        note=str(entries.get("note", "")).strip(),
        has_mean=_flag(entries.get("mean", False), f"{file}: mean"),
        is_mini=mini,
    )


def _flag(value: Any, where: str) -> bool:
    if not isinstance(value, bool):
        raise SweepError(f"{where} must be true or false, not {value!r}")
    return value


def load_sweeps(files: Sequence[Path], *, mini: bool) -> list[Sweep]:
    """Read several files; if there is more than one, those with nothing for the miniature world are skipped."""
    sweeps = []
    for file in files:
        try:
            sweeps.append(load_sweep(file, mini=mini))
        except NoMiniSweep as error:
            if len(files) == 1:
                raise
            print(f"passed over: {error}", flush=True)
    return sweeps


def _variants(tree: Any, where: str, published: tuple[Variant, ...] = ()) -> tuple[Variant, ...]:
    """Read the rows; one without values of the paper takes those of the published row of the same name."""
    known = {variant.name: variant.paper for variant in published}
    variants = []
    for name, entry in _mapping(tree, where).items():
        keys = _mapping(entry or {}, f"{where}: {name}", VARIANT_KEYS)
        paper = keys.get("paper", known.get(name, {}))
        if not isinstance(paper, Mapping) or not all(isinstance(value, int | float) for value in paper.values()):
            raise SweepError(f"{where}: {name}: paper must map columns to numbers, not {paper!r}")
        settings = _mapping(keys.get("settings", {}), f"{where}: {name}: settings")
        variants.append(Variant(str(name), settings, {str(k): float(v) for k, v in paper.items()}))
    if not variants:
        raise SweepError(f"{where} must name at least one variant")
    return tuple(variants)


def _plot(tree: Any, where: str) -> Plot:
    keys = _mapping(tree, where, PLOT_KEYS)
    for key in ("x", "label"):
        if not isinstance(keys.get(key), str):
            raise SweepError(f"{where}: {key} must be text, not {keys.get(key)!r}")
    return Plot(keys["x"], keys["label"], bool(keys.get("log", False)))


def _mapping(tree: Any, where: str, known: tuple[str, ...] = ()) -> dict[str, Any]:
    """Check that a node of the file is a mapping, and that its keys are known where there is a list of them."""
    if not isinstance(tree, Mapping):
        raise SweepError(f"{where} must be a mapping, not {tree!r}")
    for key in tree if known else ():
        if key not in known:
            hint = did_you_mean(key, known, f"known: {', '.join(known)}")
            raise SweepError(f"{where}: unknown key {key!r}; {hint}")
    return dict(tree)


def _seeds(seeds: Any, where: str) -> tuple[int, ...]:
    valid = isinstance(seeds, list) and seeds and all(type(seed) is int and seed >= 0 for seed in seeds)
    if not valid or len(set(seeds)) < len(seeds):
        raise SweepError(f"{where} must be a list of different whole numbers from 0, not {seeds!r}")
    return tuple(seeds)
