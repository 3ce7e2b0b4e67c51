"""Evaluation of any number of benchmarks, each with its own vocabulary, K, ignore label and variant."""

import logging
from pathlib import Path

import torch
from fvcore.common.config import CfgNode
from tqdm import tqdm

from err_seg.data import DatasetSpec, EvaluationTransform, SegmentationPairs, evaluation_loader, get_dataset
from err_seg.evaluation import BenchmarkResult, ConfusionMatrix, save_results, save_summary_csv
from err_seg.modeling.err_seg import ERRSeg

logger = logging.getLogger(__name__)


def evaluate(cfg: CfgNode, model: ERRSeg) -> list[BenchmarkResult]:
    """Evaluate the model on ``DATASETS.TEST``; writes ``results.json`` and ``results.csv`` to ``OUTPUT_DIR``."""
    pairs = [SegmentationPairs(get_dataset(name), cfg.DATASETS.ROOT) for name in cfg.DATASETS.TEST]
    results = [evaluate_benchmark(cfg, model, benchmark) for benchmark in pairs]
    output = Path(cfg.OUTPUT_DIR)
    output.mkdir(parents=True, exist_ok=True)
    save_results(results, output / "results.json")
    save_summary_csv(results, output / "results.csv")
    return results


def benchmark_num_kept(cfg: CfgNode, spec: DatasetSpec) -> int | None:
    """Return K for a benchmark: ``MODEL.CRM.NUM_KEPT`` where set, else the benchmark's own; ``None`` is the model's."""
    if not cfg.MODEL.CRM.ENABLED:
        return None
    return cfg.MODEL.CRM.NUM_KEPT or spec.num_kept


@torch.no_grad()
def evaluate_benchmark(cfg: CfgNode, model: ERRSeg, pairs: SegmentationPairs) -> BenchmarkResult:
    """Evaluate the model on one benchmark: labels of each picture at its own size against the ground truth."""
    spec = pairs.spec
    num_kept = benchmark_num_kept(cfg, spec)
    confusion = ConfusionMatrix(
        spec.num_evaluated_classes, spec.ignore_label, background=spec.num_foreground, device=model.device
    )
    loader = evaluation_loader(
        pairs,
        EvaluationTransform(cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST),
        cfg.TEST.BATCH_SIZE,
        cfg.DATALOADER.NUM_WORKERS,
    )
    with model.evaluating(), tqdm(total=len(pairs), desc=spec.name, unit="picture") as progress:
        text = model.embed_vocabulary(spec.vocabulary)
        for items in loader:
            prediction = model(model.preprocess([item.image for item in items]), text, num_kept)
            for item, result in zip(
                items, model.compact(prediction, spec.vocabulary, [item.size for item in items]), strict=True
            ):
                confusion.update(result.labels, item.label.to(model.device))
            progress.update(len(items))
    settings = {"K": num_kept or model.num_kept, "S": cfg.INPUT.SIZE, "weights": cfg.MODEL.WEIGHTS}
    return BenchmarkResult.from_confusion(spec.name, confusion, spec.evaluated_classes, len(pairs), settings=settings)
