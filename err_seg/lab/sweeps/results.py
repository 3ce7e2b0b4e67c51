"""The results of a sweep's runs, as far as they are done."""

import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field

from err_seg.data import find_dataset
from err_seg.evaluation import load_results
from err_seg.evaluation.metrics import SEEN_METRICS
from err_seg.evaluation.predictors import benchmark_num_kept
from err_seg.lab.benchmarks.machine import network_cost
from err_seg.lab.mini.evaluation import group_miou
from err_seg.lab.sweeps.definition import Sweep
from err_seg.lab.sweeps.plan import Run

BENCHMARKS = {
    "ade20k_847_val": "A-847",
    "pascal_context_459_val": "PC-459",
    "ade20k_150_val": "A-150",
    "pascal_context_59_val": "PC-59",
    "pascal_voc_20_val": "PAS-20",
    "pascal_voc_20b_val": "PAS-20b",
}
"""The paper's names; other benchmarks are called by their own."""
MINI_COLUMNS = ("seen", "unseen", "all")
KEPT, MACS, MEMORY = "classes kept", "ESCF GMAC", "training GiB"
MIN_SCORE = "MODEL.CRM.MIN_SCORE"
NEGLIGIBLE = 0.1
"""Points of mIoU below which the paper's mean difference counts as none."""


@dataclass(frozen=True)
class VariantResult:
    """One variant: in each column a value for each of the ``seeds`` that are done, in their order, and the paper's."""

    name: str
    seeds: list[int] = field(default_factory=list)
    values: dict[str, list[float]] = field(default_factory=dict)
    paper: dict[str, float] = field(default_factory=dict)

    def mean(self, column: str) -> float | None:
        """Average over the seeds; ``None`` if nothing is done."""
        values = self.values.get(column)
        return statistics.fmean(values) if values else None

    def deviation(self, column: str) -> float | None:
        """Sample standard deviation over the seeds; ``None`` for fewer than two."""
        values = self.values.get(column, ())
        return statistics.stdev(values) if len(values) > 1 else None


def measured_rows(sweep: Sweep, runs: Sequence[Run]) -> list[VariantResult]:
    """Collect the values of the runs that are done: one row per variant, in the sweep's order."""
    rows = {variant.name: VariantResult(variant.name, paper=variant.paper) for variant in sweep.variants}
    for run in runs:
        if run.is_evaluated():
            row = rows[run.variant.name]
            row.seeds.append(run.seed)
            for column, value in (accuracies(sweep, run) | costs(run, sweep.cost)).items():
                row.values.setdefault(column, []).append(value)
    return list(rows.values())


def accuracies(sweep: Sweep, run: Run) -> dict[str, float]:
    """Read a run's mIoU, in percent: for each benchmark, or for each group of the miniature world that has one.

    If the sweep varies CRM's minimum score, how many classes were kept per image on average follows.
    """
    results = load_results(run.results)
    if sweep.is_mini:
        (result,) = results
        groups = group_miou(result)
        values = {column: groups[column] for column in MINI_COLUMNS if column in groups}
        kept_columns = [KEPT]
    else:
        names = [BENCHMARKS.get(result.benchmark, result.benchmark) for result in results]
        values = {name: result.metrics["mIoU"] for name, result in zip(names, results, strict=True)}
        for name, result in zip(names, results, strict=True):
            values |= {f"{name}, {x}": result.metrics[x] for x in SEEN_METRICS if x in result.metrics}
        kept_columns = [f"{KEPT}, {name}" for name in names]
    if any(MIN_SCORE in variant.settings for variant in sweep.variants):
        kept = zip(kept_columns, results, strict=True)
        values |= {column: result.mean_kept for column, result in kept if result.mean_kept is not None}
    return values


def costs(run: Run, dataset: str) -> dict[str, float]:
    """Count a run's multiply-adds in ESCF, on one image with the vocabulary and K of a data set ("": count nothing).

    If the run was trained on a GPU, add the peak memory of the training, in GiB.
    """
    if not dataset:
        return {}
    spec = find_dataset(dataset, run.cfg.DATASETS.CUSTOM)
    num_classes = len(spec.vocabulary)
    num_kept = benchmark_num_kept(run.cfg, spec) or num_classes
    cost = network_cost(run.cfg, num_classes=num_classes, num_kept=num_kept)
    values = {MACS: cost.macs.get("escf", 0) / 1e9}
    try:
        facts = json.loads((run.training.folder / "environment.json").read_text(encoding="utf-8"))
        lines = (run.training.folder / "metrics.json").read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:  # trained elsewhere
        return values
    if facts["cuda"] and lines:
        values[MEMORY] = max(json.loads(line).get("max_mem", 0) for line in lines) / 1024
    return values


def verdict(row: VariantResult, reference: VariantResult, column: str) -> str:
    """Compare a row with the reference: seed by seed as measured, and by the mean over the columns in the paper.

    Returns:
        "within the spread" if the mean of the differences between runs of the same seed is not larger than their
        standard deviation; else "as in the paper", "other way round", or "none in the paper" if the paper has next to
        no difference; "" if either side has no values, or fewer than two seeds.
    """
    paper = paper_difference(row, reference)
    differences = seed_differences(row, reference, column)
    if paper is None or len(differences) < 2:
        return ""
    mean = statistics.fmean(differences)
    if abs(mean) <= statistics.stdev(differences):
        return "within the spread"
    if abs(paper) < NEGLIGIBLE:
        return "none in the paper"
    return "as in the paper" if mean * paper > 0 else "other way round"


def seed_differences(row: VariantResult, reference: VariantResult, column: str) -> list[float]:
    """List row minus reference for each seed that both have."""
    ours, theirs = (dict(zip(r.seeds, r.values.get(column, ()), strict=False)) for r in (row, reference))
    return [ours[seed] - theirs[seed] for seed in row.seeds if seed in ours and seed in theirs]


def paper_difference(row: VariantResult, reference: VariantResult) -> float | None:
    """Average row minus reference over the paper's benchmarks; ``None`` for the reference and without values."""
    shared = [name for name in BENCHMARKS.values() if name in row.paper and name in reference.paper]
    if row is reference or not shared:
        return None
    return statistics.fmean(row.paper[name] - reference.paper[name] for name in shared)


def columns_of(sweep: Sweep, rows: Sequence[VariantResult]) -> list[str]:
    """List the columns of values; where the paper has values, its columns too."""
    known = MINI_COLUMNS if sweep.is_mini else tuple(BENCHMARKS.values())
    named = {column for row in rows for column in [*row.values, *(() if sweep.is_mini else row.paper)]}
    shown = [column for column in known if column in named or sweep.is_mini]
    shown += sorted(named - set(shown) - {MACS, MEMORY})
    return shown + [column for column in (MACS, MEMORY) if column in named]
