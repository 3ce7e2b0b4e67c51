"""Evaluation of any number of benchmarks, each with its own vocabulary, K, ignore label and variant."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from err_seg.config import Config, ConfigError
from err_seg.data import DatasetSpec, SegmentationPairs, get_dataset
from err_seg.data.ground_truth import check_ground_truth
from err_seg.evaluation import BenchmarkResult, BoundaryConfusion, ConfusionMatrix
from err_seg.evaluation.calibration import BINS, count_pixels
from err_seg.evaluation.loop import count_images, evaluation_batches
from err_seg.evaluation.metrics import image_metrics
from err_seg.evaluation.predictors import NetworkPredictor, Predictor, WithDistractors, benchmark_num_kept
from err_seg.evaluation.results import (
    PredictionFiles,
    save_class_csv,
    save_image_counts,
    save_results,
    save_summary_csv,
)
from err_seg.evaluation.state import EvaluationProgress
from err_seg.evaluation.tta import segment_images
from err_seg.plugins import METRICS
from err_seg.prediction.model import ERRSeg
from err_seg.utils.device import upload
from err_seg.utils.errors import EvaluationError, translate_errors
from err_seg.utils.files import file_signature
from err_seg.utils.fingerprint import fingerprint
from err_seg.utils.processes import check_shared_folder, is_main_process, of_main_process, one_writer, wait_for_all

logger = logging.getLogger(__name__)

FOLDS = 5  # of the images that calibration is cross-validated on
GO_ON = "rerun the same command (with --resume, if it trains first) to continue from there"


def evaluate(cfg: Config, model: ERRSeg | Predictor) -> list[BenchmarkResult]:
    """Evaluate the model, or any other predictor, on ``DATASETS.TEST``.

    Writes ``results.json`` and ``results.csv`` to ``OUTPUT_DIR``; and ``classes.csv``, ``images.npz`` and the files
    that ``TEST.SAVE`` asks for to ``OUTPUT_DIR/inference/<benchmark>``. If ``torch.distributed`` is initialised, all
    its processes must call this. Each takes a share of the images, and all return the same results, which are exactly
    those of one process. After a kill, the same call with the same weights and settings continues: it skips the images
    that are done.

    Raises:
        ArgumentError: the model is in training mode.
        ConfigError, DatasetError: as for :func:`open_benchmarks`.
        ConfigError: processes on several machines do not share one ``OUTPUT_DIR``.
        EvaluationError: another run writes to ``OUTPUT_DIR``; or an image cannot be read, a file cannot be written, or
            a loader process was killed: says for how many images results are kept.
    """
    benchmarks = open_benchmarks(cfg)
    output = Path(cfg.OUTPUT_DIR)
    predictor = NetworkPredictor(cfg, model) if isinstance(model, ERRSeg) else model
    if cfg.TEST.DISTRACTORS:
        predictor = WithDistractors(predictor, cfg.TEST.DISTRACTORS)
    with one_writer(output, EvaluationError):
        check_shared_folder(output)
        done = [evaluate_benchmark(cfg, predictor, pairs) for pairs in benchmarks]
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


def evaluate_benchmark(
    cfg: Config, predictor: Predictor, pairs: SegmentationPairs
) -> tuple[BenchmarkResult, EvaluationProgress]:
    """Evaluate on one benchmark: compare each image's labels, at its own size, with the ground truth.

    Returns the result, and the record of progress, which is to be removed when the result is written.
    """
    spec, test = pairs.spec, cfg.TEST
    folder = Path(cfg.OUTPUT_DIR) / "inference" / spec.name
    settings = predictor.settings(spec) | pairs.selection
    facts = {
        **predictor.identity(),
        "data": spec.facts(),
        "pictures": [(name, *map(file_signature, pairs.paths(i))) for i, name in enumerate(pairs.names)],
        "files": test.SAVE,
    }
    logger.info("evaluating %d images of %s: %s", len(pairs), spec.name, predictor)
    progress = EvaluationProgress(folder, of_main_process(fingerprint({**settings, **facts})))
    counts = new_counts(
        spec,
        predictor.device,
        boundary_iou=test.BOUNDARY_IOU,
        metrics=test.METRICS,
        confidence=test.CALIBRATION,
        others=predictor.others,
    )
    files = PredictionFiles(folder, test.SAVE, spec, pairs.names)
    with translate_errors(EvaluationError, lambda: f"{progress.saved} images of {spec.name} are done and kept", GO_ON):
        progress.restore(counts)
        time_share = count_images(cfg, predictor, pairs, counts, progress, files)
    logger.info("%s took %s; reading the next images and counting go on meanwhile", predictor.name, time_share)
    wait_for_all()  # may take hours if shares are unequal; what follows is short
    counts.all_reduce()
    of_images = progress.image_counts(len(pairs), spec.num_evaluated_classes)
    if is_main_process():
        files.finish()
        save_image_counts(folder, pairs.names, of_images)
    result = BenchmarkResult.from_counts(
        *(spec.name, counts, spec.evaluated_classes, len(pairs)), *(settings | predictor.source, spec.seen_and_unseen)
    )
    metrics, mean_kept = result.metrics | image_metrics(of_images), progress.mean_kept(predictor.device)
    return replace(result, metrics=metrics, mean_kept=mean_kept), progress


def new_counts(
    spec: DatasetSpec,
    device: torch.device | str,
    *,
    boundary_iou: bool,
    metrics: Sequence[str] = (),
    confidence: bool = False,
    others: bool = False,
) -> ConfusionMatrix:
    """Return an empty counter for a benchmark's pixels, which also computes the ``metrics`` of these names.

    With ``confidence``, confidences are counted as well; with ``others``, predictions that are none of the classes.

    Raises:
        ConfigError: no imported package registers a metric of that name.
    """
    counter = BoundaryConfusion if boundary_iou else ConfusionMatrix
    counts = counter(
        spec.num_evaluated_classes, spec.ignore_label, background=spec.num_foreground, device=device, others=others
    )
    counts.further = [METRICS.get(name) for name in metrics]
    if confidence:
        counts.count_confidence(spec.seen_and_unseen)
    return counts


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
