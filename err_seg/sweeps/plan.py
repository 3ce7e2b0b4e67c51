"""From variant and seed to a configuration, and to the folders of its training and its evaluation.

Folders are named after a hash of the settings that matter, so that sweeps share trainings: the full network of
Tables V, VIII, IX, X and XI is trained once, and the rows of Table XIII are evaluations of one training.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fvcore.common.config import CfgNode

from err_seg.config import ConfigError, get_cfg, settings_of
from err_seg.defaults import default_cfg
from err_seg.files import file_sha256
from err_seg.identity import fingerprint
from err_seg.mini.world import set_scenes
from err_seg.sweeps.definition import Sweep, SweepError, Variant

# settings that change neither weights nor figures, but by rounding: where things lie, how fast, what is told
INDIFFERENT = (
    *("OUTPUT_DIR", "DATASETS.ROOT", "DATALOADER", "LOG", "VIS_PERIOD", "MODEL.DEVICE", "MODEL.TEXT.CACHE_DIR"),
    *("SOLVER.PARALLEL", "SOLVER.COMPILE", "SOLVER.ACTIVATION_CHECKPOINTING", "SOLVER.ACCUMULATION_STEPS"),
    *("SOLVER.CHECKPOINT_PERIOD", "SOLVER.CHECKPOINTS_KEPT", "TEST.PROGRESS_PERIOD", "TEST.SAVE", "TEST.BATCH_SIZE"),
)
# settings that a training does not read
OF_EVALUATION = (
    *("TEST", "DATASETS.TEST", "INPUT.SIZE", "INPUT.MIN_SIZE_TEST", "INPUT.MAX_SIZE_TEST", "MODEL.CRM.NUM_KEPT"),
)


@dataclass(frozen=True)
class Run:
    """One variant with one seed.

    Attributes:
        variant, seed: which.
        cfg: its configuration, ``OUTPUT_DIR`` aside.
        training: folder of the training; shared by runs that differ in evaluation only.
        evaluation: folder of the evaluation.
        weights: what the training leaves, or weights that are there already, which spare it.
    """

    variant: Variant
    seed: int
    cfg: CfgNode
    training: Path
    evaluation: Path
    weights: Path

    @property
    def title(self) -> str:
        """How messages name it."""
        return f"{self.variant.name}, seed {self.seed}"

    @property
    def results(self) -> Path:
        """What the evaluation leaves."""
        return self.evaluation / "results.json"


def plan_runs(
    sweep: Sweep,
    store: Path,
    overrides: Sequence[Any] = (),
    *,
    seeds: Sequence[int] = (),
    weights: Path | None = None,
    scenes: Mapping[str, int] | None = None,
) -> list[Run]:
    """List the runs of a sweep, seed by seed, so that an interrupted sweep has whole tables of the first seeds.

    Args:
        sweep: the table.
        store: folder of all runs.
        overrides: ``[key, value, ...]`` for all variants, on top of their own settings.
        seeds: further ones than the sweep's.
        weights: a file to evaluate every variant with, once, instead of training any.
        scenes: how many the splits of the miniature world have, where not its own numbers.

    Raises:
        SweepError: a variant whose configuration is refused (names it), or an override of what the variants differ in.
        FileNotFoundError: there are no such weights.
    """
    swept = {key for variant in sweep.variants for key in variant.settings}
    if both := sorted(swept.intersection(overrides[::2])):
        raise SweepError(f"{sweep.file} sweeps {', '.join(both)}, which cannot be overridden for all variants")
    plan = functools.partial(_plan_run, sweep, store, overrides, scenes or {})
    if weights is not None:
        given = (weights, f"weights-{file_sha256(weights)[:12]}")
        return [plan(variant=variant, seed=sweep.seeds[0], given=given) for variant in sweep.variants]
    pairs = [(variant, seed) for seed in dict.fromkeys([*sweep.seeds, *seeds]) for variant in sweep.variants]
    return [plan(variant=variant, seed=seed) for variant, seed in pairs]


def select_runs(runs: Sequence[Run], variants: Sequence[str], seeds: Sequence[int]) -> list[Run]:
    """List those of some variants and some seeds; none of either: all.

    Raises:
        SweepError: a variant that no run has.
    """
    names = dict.fromkeys(run.variant.name for run in runs)
    for name in variants:
        if name not in names:
            raise SweepError(f"there is no variant {name!r}; there are {', '.join(map(repr, names))}")
    return [r for r in runs if (not variants or r.variant.name in variants) and (not seeds or r.seed in seeds)]


def _plan_run(
    sweep: Sweep,
    store: Path,
    overrides: Sequence[Any],
    scenes: Mapping[str, int],
    *,
    variant: Variant,
    seed: int,
    given: tuple[Path, str] | None = None,
) -> Run:
    own = [item for pair in {**sweep.settings, **variant.settings}.items() for item in pair]
    try:
        cfg = get_cfg(sweep.base, [*own, *overrides, "SEED", seed])
    except ConfigError as error:
        raise SweepError(f"{sweep.file}: variant {variant.name!r}: {error}") from error
    set_scenes(cfg, scenes)
    settings = changed_settings(cfg)
    training = {key: value for key, value in settings.items() if not _is_under(key, OF_EVALUATION)}
    if given is None:
        folder = store / fingerprint(training)[:12]
        evaluation = {key: value for key, value in settings.items() if key not in training}
        weights = folder / "model_final.safetensors"
    else:  # the weights do not tell what network they are of
        folder, evaluation, weights = store / given[1], settings, given[0]
    return Run(variant, seed, cfg, folder, folder / "evaluations" / fingerprint(evaluation)[:12], weights)


def changed_settings(cfg: CfgNode) -> dict[str, Any]:
    """List the settings that differ from the defaults and can change a figure: dotted key to value."""
    defaults = dict(settings_of(default_cfg()))
    settings = {key: value for key, value in settings_of(cfg) if not _is_under(key, INDIFFERENT)}
    return {key: value for key, value in sorted(settings.items()) if value != defaults[key]}


def _is_under(key: str, roots: Sequence[str]) -> bool:
    return any(key == root or key.startswith(f"{root}.") for root in roots)
