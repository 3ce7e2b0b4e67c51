"""Evaluation of any number of benchmarks, each with its own vocabulary, K, ignore label and variant."""

import logging
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from err_seg.config import Config, ConfigError, network_settings
from err_seg.data import DatasetSpec, SegmentationPairs, get_dataset
from err_seg.data.ground_truth import check_ground_truth
from err_seg.evaluation import BenchmarkResult, BoundaryConfusion, ConfusionMatrix
from err_seg.evaluation.calibration import BINS, count_pixels
from err_seg.evaluation.loop import count_images, evaluation_batches
from err_seg.evaluation.results import PredictionFiles, save_class_csv, save_results, save_summary_csv
from err_seg.evaluation.state import EvaluationProgress
from err_seg.evaluation.tta import evaluation_transform, evaluation_views, segment_images
from err_seg.plugins import METRICS, package_digests
from err_seg.prediction.model import ERRSeg
from err_seg.utils.device import Precision, resolve_precision, upload
from err_seg.utils.errors import EvaluationError, translate_errors
from err_seg.utils.files import file_signature
from err_seg.utils.fingerprint import fingerprint, weights_digest
from err_seg.utils.processes import check_shared_folder, is_main_process, of_main_process, one_writer, wait_for_all

logger = logging.getLogger(__name__)

FOLDS = 5  # of the images that calibration is cross-validated on
GO_ON = "rerun the same command (with --resume, if it trains first) to continue from there"


def evaluate(cfg: Config, model: ERRSeg) -> list[BenchmarkResult]:
    """Evaluate the model on ``DATASETS.TEST``.

    Writes ``results.json`` and ``results.csv`` to ``OUTPUT_DIR``, and ``classes.csv`` and the files that ``TEST.SAVE``
    asks for to ``OUTPUT_DIR/inference/<benchmark>``. If ``torch.distributed`` is initialised, all its processes must
    call this. Each takes a share of the images, and all return the same results, which are exactly those of one
    process. After a kill, the same call with the same weights and settings continues: it skips the images that are
    done.

    Raises:
        ArgumentError: the model is in training mode.
        ConfigError, DatasetError: as for :func:`open_benchmarks`.
        ConfigError: processes on several machines do not share one ``OUTPUT_DIR``.
        EvaluationError: another run writes to ``OUTPUT_DIR``; or an image cannot be read, a file cannot be written, or
            a loader process was killed: says for how many images results are kept.
    """
    benchmarks = open_benchmarks(cfg)
    output, weights = Path(cfg.OUTPUT_DIR), weights_digest(model)
    with one_writer(output, EvaluationError):
        check_shared_folder(output)
        done = [evaluate_benchmark(cfg, model, pairs, weights) for pairs in benchmarks]
        results = [result for result, _ in done]
        with translate_errors(EvaluationError, lambda: "all images are done and kept", GO_ON):
            save_benchmarks(results, output)
        wait_for_all()
        for _, progress in done:
            progress.remove()
    return results


def save_benchmarks(results: Sequence[BenchmarkResult], output: Path) -> None:
    """Write the result files of :func:`evaluate`, in the main process."""
    if not is_main_process():
        return
    for result in results:
        save_class_csv(result, output / "inference" / result.benchmark / "classes.csv")
    save_results(results, output / "results.json")
    save_summary_csv(results, output / "results.csv")


def open_benchmarks(cfg: Config) -> list[SegmentationPairs]:
    """Find the images of ``DATASETS.TEST`` that are evaluated, and look at their label maps.

    Raises:
        ConfigError: a benchmark is named twice.
        DatasetError: a benchmark is unknown or not on disk, or its label maps hold nothing that can be measured.
    """
    complete = (SegmentationPairs(get_dataset(name), cfg.DATASETS.ROOT) for name in cfg.DATASETS.TEST)
    benchmarks = [pairs.spread(cfg.TEST.NUM_IMAGES) for pairs in complete]
    check_once([pairs.spec for pairs in benchmarks])
    for pairs in benchmarks:
        check_ground_truth(pairs)
    return benchmarks


def check_once(benchmarks: Sequence[DatasetSpec]) -> None:
    """Raise a ConfigError if a benchmark is named twice, since its second evaluation would overwrite the first."""
    names = [spec.name for spec in benchmarks]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ConfigError(f"DATASETS.TEST names {', '.join(repeated)} more than once; each benchmark is evaluated once")


def benchmark_num_kept(cfg: Config, spec: DatasetSpec) -> int | None:
    """Return K for a benchmark: ``MODEL.CRM.NUM_KEPT`` if set, else the benchmark's own; ``None``: the model's."""
    return (cfg.MODEL.CRM.NUM_KEPT or spec.num_kept) if cfg.MODEL.CRM.ENABLED else None


def evaluate_benchmark(
    cfg: Config, model: ERRSeg, pairs: SegmentationPairs, weights: str
) -> tuple[BenchmarkResult, EvaluationProgress]:
    """Evaluate the model on one benchmark: compare each image's labels, at its own size, with the ground truth.

    Returns the result, and the record of progress, which is to be removed when the result is written. It is of use only
    for the same ``weights``, the digest of the model's.
    """
    spec = pairs.spec
    folder = Path(cfg.OUTPUT_DIR) / "inference" / spec.name
    precision = resolve_precision(cfg.TEST.PRECISION, model.device)
    if precision.name != model.precision:
        precision = Precision(model.precision, "the model's own")
    settings = evaluation_settings(cfg, spec, num_kept=model.num_kept, precision=precision) | pairs.selection
    facts = {
        "weights": weights,
        "network": network_settings(cfg),
        "data": spec.facts(),
        "pictures": [(name, *map(file_signature, pairs.paths(i))) for i, name in enumerate(pairs.names)],
        "files": cfg.TEST.SAVE,
        "packages": package_digests(cfg.MODEL.IMPORTS),
        **({"calibration": repr(model.calibration)} if cfg.TEST.CALIBRATION else {}),
    }
    logger.info(
        "evaluating %d images of %s: precision %s (%s), without TF32, device %s",
        *(len(pairs), spec.name, settings["precision"], settings["precision_reason"], model.device),
    )
    progress = EvaluationProgress(folder, of_main_process(fingerprint({**settings, **facts})))
    test = cfg.TEST
    counts = new_counts(
        spec, model.device, boundary_iou=test.BOUNDARY_IOU, metrics=test.METRICS, confidence=test.CALIBRATION
    )
    files = PredictionFiles(folder, cfg.TEST.SAVE, spec, pairs.names)
    with translate_errors(EvaluationError, lambda: f"{progress.saved} images of {spec.name} are done and kept", GO_ON):
        progress.restore(counts)
        network = count_images(cfg, model, pairs, benchmark_num_kept(cfg, spec), counts, progress, files)
    logger.info("the network took %s; reading the next images and counting go on meanwhile", network)
    wait_for_all()  # may take hours if shares are unequal; what follows is short
    counts.all_reduce()
    if is_main_process():
        files.finish()
    result = BenchmarkResult.from_counts(
        *(spec.name, counts, spec.evaluated_classes, len(pairs)),
        *(settings | source_of(model), spec.seen_and_unseen),
    )
    return replace(result, mean_kept=progress.mean_kept(model.device)), progress


def source_of(model: ERRSeg) -> dict[str, Any]:
    """Return where a model's weights were read from, and how it is calibrated, as far as known: entries of settings."""
    found = {"source": model.source, "calibration": model.calibration}
    return {name: asdict(value) for name, value in found.items() if value}


def new_counts(
    spec: DatasetSpec,
    device: torch.device | str,
    *,
    boundary_iou: bool,
    metrics: Sequence[str] = (),
    confidence: bool = False,
) -> ConfusionMatrix:
    """Return an empty counter for a benchmark's pixels, which also computes the ``metrics`` of these names.

    With ``confidence``, confidences are counted as well.

    Raises:
        ConfigError: no imported package registers a metric of that name.
    """
    counter = BoundaryConfusion if boundary_iou else ConfusionMatrix
    counts = counter(spec.num_evaluated_classes, spec.ignore_label, background=spec.num_foreground, device=device)
    counts.further = [METRICS.get(name) for name in metrics]
    if confidence:
        counts.count_confidence(spec.seen_and_unseen)
    return counts


def evaluation_settings(
    cfg: Config, spec: DatasetSpec, *, num_kept: int | None, precision: Precision
) -> dict[str, Any]:
    """Return what a benchmark's metrics depend on besides weights and data; it is stored with them.

    ``num_kept`` is the model's own K, for a benchmark that has none.
    """
    return {
        "K": benchmark_num_kept(cfg, spec) or num_kept,
        "min_score": cfg.MODEL.CRM.MIN_SCORE,
        "S": cfg.INPUT.SIZE,
        "shortest_side": evaluation_transform(cfg).min_size,
        "longest_side": cfg.INPUT.MAX_SIZE_TEST,
        "tile": cfg.TEST.TILE,
        "refine": cfg.TEST.REFINE,
        "views": [{"size": view.size, "mirrored": view.mirrored} for view in evaluation_views(cfg)],
        "precision": precision.name,
        "precision_reason": precision.reason,
        "tf32": False,  # ``ERRSeg.evaluating`` switches it off
        "weights": cfg.MODEL.WEIGHTS,
    }


@torch.no_grad()
def count_for_calibration(
    cfg: Config, model: ERRSeg, benchmarks: Sequence[SegmentationPairs]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Count the pixels of labelled images by lead and by score, as evaluation sees them, of fifths of the images apart.

    Returns:
        Two arrays (5, BINS, 2) of wrong and right pixels, see :mod:`err_seg.evaluation.calibration`.
    """
    leads, scores = torch.zeros(2, FOLDS, BINS, 2, dtype=torch.int64, device=model.device)
    with model.evaluating():
        for pairs in benchmarks:
            spec, num_kept = pairs.spec, benchmark_num_kept(cfg, pairs.spec)
            text = model.embed_vocabulary(spec.vocabulary)
            for items in evaluation_batches(cfg, pairs):
                asked = (text, num_kept, spec.vocabulary, [item.size for item in items])
                results = segment_images(cfg, model, [item.image for item in items], asked)
                for item, result in zip(items, results, strict=True):
                    label, last = upload(item.label, model.device).long(), spec.num_evaluated_classes - 1
                    counted = label != spec.ignore_label
                    is_right = (result.checked().labels.clamp(max=last) == label)[counted]
                    for counts, values in ((leads, result.lead), (scores, result.scores)):
                        counts[item.index % FOLDS] += count_pixels(values[counted], is_right)[0]
    return leads.cpu().numpy(), scores.cpu().numpy()
