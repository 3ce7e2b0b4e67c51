"""From variant and seed to a configuration, and to the folders of its training and its evaluation.

A folder's name is a hash of all settings that matter, of the data and of the version of the results. Sweeps thus share
trainings: the full network of Tables V, VIII, IX, X and XI is trained once, and the rows of Table XIII are evaluations
of one training. Each folder stores those settings; results of other settings in it are refused.

A record of an earlier version may lack keys: they count as at their defaults. If it does not say which files the data
sets had, or they are not on disk now, they count as the same; the record is then completed.
"""

import functools
import itertools
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from err_seg.config import Config, ConfigError, completed, get_cfg, settings_of
from err_seg.data import DatasetError, DatasetSpec, digest_of_files, find_dataset
from err_seg.lab.mini.evaluation import set_scenes
from err_seg.lab.sweeps.definition import Sweep, SweepError, Variant
from err_seg.mini.clip import CLIPS
from err_seg.models.checkpoint import weights_file_digest
from err_seg.models.hub_files import MODELS
from err_seg.plugins import package_digests
from err_seg.utils.files import write_json
from err_seg.utils.fingerprint import RESULT_FORMAT, file_digest, fingerprint
from err_seg.utils.messages import listed

logger = logging.getLogger(__name__)

# settings that change neither weights nor metrics, except by rounding: places, speed, logging; and declared data sets,
# of which those in use count by their declaration
INDIFFERENT = (
    *("OUTPUT_DIR", "DATASETS.ROOT", "DATASETS.CUSTOM", "DATALOADER.NUM_WORKERS", "LOG", "VIS_PERIOD"),
    *("MODEL.DEVICE", "MODEL.TEXT.CACHE_DIR"),
    *("SOLVER.PARALLEL", "SOLVER.COMPILE", "SOLVER.ACCUMULATION_STEPS"),
    *("SOLVER.ACTIVATION_CHECKPOINTING", "SOLVER.RECOMPUTED"),
    *("SOLVER.CHECKPOINT_PERIOD", "SOLVER.CHECKPOINTS_KEPT", "SOLVER.STOP_SIGNALS"),
    *("TEST.PROGRESS_PERIOD", "TEST.SAVE", "TEST.BATCH_SIZE", "TEST.COMPILE"),
    *("TEST.EVAL_PERIOD", "TEST.BEST_METRIC", "DATASETS.VAL"),  # the last weights are what is measured
)
# settings that a training does not read
OF_EVALUATION = (
    *("TEST", "DATASETS.TEST", "INPUT.SIZE", "INPUT.MIN_SIZE_TEST", "INPUT.MAX_SIZE_TEST"),
    *("MODEL.CRM.NUM_KEPT", "MODEL.CRM.MIN_SCORE"),
)
# settings that name files of weights, with the names of those in the package
PACKAGED: dict[str, dict[str, Path]] = {
    "MODEL.WEIGHTS": {},
    "MODEL.CLIP.PRETRAINED": {name: clip.weights for name, clip in CLIPS.items()},
    "MODEL.DISTILL.WEIGHTS": {name: model.packaged for name, model in MODELS.items() if model.packaged},
}
RECORD = "identity.json"
FILES = "files"  # the digest of those of a data set is under this key
DIGITS = 12  # of a folder's name


@dataclass(frozen=True)
class Task:
    """A training or an evaluation.

    Attributes:
        folder: where it is done.
        product: the file that it writes last.
        facts: all that the product depends on, key to JSON-able value; for an evaluation, except the weights.
    """

    folder: Path
    product: Path
    facts: dict[str, Any]

    def begin(self, weights: str = "") -> None:
        """Write the facts to the folder, with the digest of the weights that are evaluated."""
        document = {"format": RESULT_FORMAT, "weights": weights, "facts": self.facts}
        write_json(self.folder / RECORD, document)

    def begun_with(self) -> str | None:
        """Return the digest that :meth:`begin` has written; ``None`` if nothing was begun.

        Raises:
            SweepError: the folder belongs to other facts, or to unknown ones.
        """
        if not self.folder.is_dir() or self.product.parent != self.folder:  # the product was not made by a sweep
            return None
        facts, weights = read_record(self.folder)
        if not facts and not any(self.folder.glob("[!.]*")):
            return None
        if differing := differing_keys(facts, self.facts):
            raise SweepError(
                f"{self.folder} holds results of other settings ({listed(differing, 5)}): move it away, or choose "
                "another --output"
            )
        if lacking := sorted(self.facts.keys() - facts.keys()):
            logger.warning("%s does not say %s, which is taken to be as now", self.folder / RECORD, listed(lacking, 5))
            with suppress(OSError):
                replace(self, facts={**facts, **self.facts}).begin(weights)
        return weights


@dataclass(frozen=True)
class Run:
    """One variant with one seed.

    Attributes:
        variant, seed: which.
        cfg: its configuration, ``OUTPUT_DIR`` aside.
        training: shared by runs that differ only in evaluation; its product may be given weights.
        evaluation: of the training's product.
    """

    variant: Variant
    seed: int
    cfg: Config
    training: Task
    evaluation: Task

    @property
    def title(self) -> str:
        """How messages name it."""
        return f"{self.variant.name}, seed {self.seed}"

    @property
    def weights(self) -> Path:
        """The product of the training, or given weights that replace it."""
        return self.training.product

    @property
    def results(self) -> Path:
        """The product of the evaluation."""
        return self.evaluation.product

    def is_trained(self) -> bool:
        """Whether the weights are there.

        Raises:
            SweepError: the folder belongs to other settings; so for all methods below.
        """
        self.training.begun_with()
        return self.weights.is_file()

    def is_evaluated(self) -> bool:
        """Whether the results are there and belong to the present weights, which may be gone by now."""
        trained, evaluated = self.is_trained(), self.evaluation.begun_with()
        if evaluated is None or not self.results.is_file():
            return False
        return not trained or evaluated == weights_file_digest(self.weights)


def plan_runs(
    sweep: Sweep,
    store: Path,
    overrides: Sequence[Any] = (),
    *,
    seeds: Sequence[int] = (),
    weights: Path | None = None,
    scenes: Mapping[str, int] | None = None,
) -> list[Run]:
    """List the runs of a sweep, seed by seed, so that an interrupted sweep has complete tables for the first seeds.

    Args:
        store: folder of all runs.
        overrides: ``[key, value, ...]`` for all variants, on top of their own settings.
        seeds: further ones than the sweep's.
        weights: a file to evaluate every variant with, once, instead of training any.
        scenes: sizes of the miniature world's splits, instead of the usual ones.

    Raises:
        SweepError: a variant whose configuration is refused (names it), or an override of what the variants differ in.
        CheckpointError: weights cannot be read.
    """
    swept = {key for variant in sweep.variants for key in variant.settings}
    if both := sorted(swept.intersection(overrides[::2])):
        raise SweepError(f"{sweep.file} sweeps {', '.join(both)}, which cannot be overridden for all variants")
    given, pairs = None, list(itertools.product(dict.fromkeys([*sweep.seeds, *seeds]), sweep.variants))
    if weights is not None:
        given = Task(store / f"weights-{weights_file_digest(weights)[:DIGITS]}", weights, {})
        pairs = [(sweep.seeds[0], variant) for variant in sweep.variants]
    files_of = functools.cache(digest_of_files)
    runs = []
    for seed, variant in pairs:
        own = [item for pair in {**sweep.settings, **variant.settings}.items() for item in pair]
        try:
            cfg = get_cfg(sweep.base, [*own, *overrides, "SEED", seed])
            set_scenes(cfg, scenes or {})
            facts = facts_of(cfg, files_of)
        except (ConfigError, DatasetError) as error:
            raise SweepError(f"{sweep.file}: variant {variant.name!r}: {error}") from error
        of_training = {key: value for key, value in facts.items() if not _is_under(key, OF_EVALUATION)}
        folder = folder_of(store, of_training)
        training = given or Task(folder, folder / "model_final.safetensors", of_training)
        # given weights do not say which network they belong to; their training images no longer matter
        left_out = {*training.facts, *(key for key in facts if _is_under(key, [f"DATASETS.TRAIN.{FILES}"]))}
        of_evaluation = {key: value for key, value in facts.items() if key not in left_out}
        folder = folder_of(training.folder / "evaluations", of_evaluation)
        runs.append(Run(variant, seed, cfg, training, Task(folder, folder / "results.json", of_evaluation)))
    return runs


def select_runs(runs: Sequence[Run], variants: Sequence[str], seeds: Sequence[int]) -> list[Run]:
    """List the runs of some variants and some seeds; without any, of all.

    Raises:
        SweepError: a variant that no run has.
    """
    names = dict.fromkeys(run.variant.name for run in runs)
    for name in variants:
        if name not in names:
            raise SweepError(f"there is no variant {name!r}; there are {', '.join(map(repr, names))}")
    return [r for r in runs if (not variants or r.variant.name in variants) and (not seeds or r.seed in seeds)]


def differing_keys(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """List the keys that differ between recorded facts and those of a run, which may be of a later version."""
    found = completed(found, wanted)
    unknown = {key for key in found.keys() ^ wanted.keys() if f".{FILES}." in key}
    keys = (found.keys() | wanted.keys()) - unknown
    return sorted(key for key in keys if found.get(key) != wanted.get(key))


def folder_of(parent: Path, facts: Mapping[str, Any]) -> Path:
    """Return the folder named after some facts; unless it exists, the only other one whose record agrees with them."""
    own = parent / fingerprint(facts)[:DIGITS]
    if own.is_dir():
        return own
    agreeing = [folder for folder in parent.glob("*") if not differing_keys(read_record(folder)[0], facts)]
    return agreeing[0] if len(agreeing) == 1 else own


def read_record(folder: Path) -> tuple[dict[str, Any], str]:
    """Read the facts that :meth:`Task.begin` has written, and the digest of the weights; empty if there are none."""
    try:
        document = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        other = {} if document["format"] == RESULT_FORMAT else {"format": document["format"]}
        return {**document["facts"], **other}, str(document["weights"])
    except (OSError, ValueError, KeyError, TypeError):
        return {}, ""


def facts_of(cfg: Config, files_of: Callable[[DatasetSpec, str], str | None]) -> dict[str, Any]:
    """List all settings that can change a metric, key to JSON-able value: data sets as declared, files by content.

    Data sets on disk add what ``files_of`` (:func:`~err_seg.data.digest_of_files`) says; the code of packages counts.

    Raises:
        DatasetError: an unknown data set.
        CheckpointError: weights to start from that cannot be read.
    """
    facts = {key: value for key, value in settings_of(cfg) if not _is_under(key, INDIFFERENT)}
    for key in ("DATASETS.TRAIN", "DATASETS.TEST"):
        specs = [find_dataset(name, cfg.DATASETS.CUSTOM) for name in facts[key]]
        facts[key] = [spec.facts() for spec in specs]
        digests = {f"{key}.{FILES}.{i}": files_of(spec, cfg.DATASETS.ROOT) for i, spec in enumerate(specs)}
        facts |= {name: digest for name, digest in digests.items() if digest}
    for key, packaged in PACKAGED.items():
        file = Path(facts[key])
        if not file.is_file():
            file = packaged.get(facts[key], file)
        if file.is_file():  # else: none, or a tag of open_clip
            facts[key] = weights_file_digest(file)
    if Path(cfg.MODEL.CLIP.NAME).is_file():
        facts["MODEL.CLIP.NAME"] = file_digest(cfg.MODEL.CLIP.NAME)
    facts["MODEL.IMPORTS"] = package_digests(cfg.MODEL.IMPORTS) or []
    return json.loads(json.dumps(facts))


def _is_under(key: str, roots: Sequence[str]) -> bool:
    return any(key == root or key.startswith(f"{root}.") for root in roots)
