"""Evaluation on the miniature world: seen and unseen classes apart, the training-free baseline, and the time."""

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median_high

import torch
from torch import Tensor

from err_seg.config import Config, ConfigError
from err_seg.data import DatasetSpec, SegmentationPairs, find_dataset, get_dataset
from err_seg.data.image_sources import image_to_tensor
from err_seg.engine import evaluate
from err_seg.evaluation import BenchmarkResult
from err_seg.evaluation.benchmarks import new_counts
from err_seg.evaluation.loop import evaluation_batches
from err_seg.lab.benchmarks.machine import synchronize
from err_seg.mini.files import SCENES, mini_world_name
from err_seg.mini.vocabulary import SEEN, UNSEEN, UNSEEN_COMBINATIONS, UNSEEN_WORDS, VOCABULARY
from err_seg.modeling.layers import resize
from err_seg.prediction.model import ERRSeg
from err_seg.utils.device import upload

BASELINE = "training-free (arg-max of C16)"
TIMED_IMAGES = 10
GROUPS: dict[str, tuple[int, ...]] = {
    "seen": SEEN,
    "unseen": UNSEEN,
    "unseen combinations": UNSEEN_COMBINATIONS,
    "unseen words": UNSEEN_WORDS,
    "all": tuple(range(len(VOCABULARY))),
}
"""Classes over which IoU is averaged; all metrics of a row come from one evaluation over the 60 names."""


def group_miou(result: BenchmarkResult) -> dict[str, float]:
    """Average IoU, in percent, over each of ``GROUPS``; those with a class that no image shows are left out."""
    iou = [result.metrics[f"IoU-{name}"] for name in VOCABULARY]
    absent = {i for i, pixels in enumerate(result.class_pixels) if not pixels}
    groups = {group: classes for group, classes in GROUPS.items() if absent.isdisjoint(classes)}
    return {group: sum(iou[i] for i in classes) / len(classes) for group, classes in groups.items()}


def set_scenes(cfg: Config, scenes: Mapping[str, int]) -> None:
    """Change in a configuration how many scenes "mini_world_<split>" has, by split; other data sets stay."""
    sized = {mini_world_name(split, SCENES[split]): mini_world_name(split, count) for split, count in scenes.items()}
    cfg.DATASETS.TRAIN = [sized.get(name, name) for name in cfg.DATASETS.TRAIN]
    cfg.DATASETS.TEST = [sized.get(name, name) for name in cfg.DATASETS.TEST]


def check_test_scenes(cfg: Config) -> DatasetSpec:
    """Return what :func:`group_miou` is measured on.

    Raises:
        ConfigError: ``DATASETS.TEST`` is not one data set with the miniature world's 60 names.
        DatasetError: it is unknown.
    """
    specs = [find_dataset(name, cfg.DATASETS.CUSTOM) for name in cfg.DATASETS.TEST]
    if len(specs) != 1 or specs[0].vocabulary != VOCABULARY:
        raise ConfigError(
            f"DATASETS.TEST must be one data set with the {len(VOCABULARY)} names of the miniature world, such as "
            f"[mini_world_test], not {cfg.DATASETS.TEST}"
        )
    return specs[0]


@torch.no_grad()
def cost_map_labels(model: ERRSeg, images: Sequence[Tensor], text: Tensor, sizes: Sequence[tuple[int, int]]) -> list:
    """Label images by CLIP alone: the arg-max over all classes of the first cost map, resized to each image.

    Args:
        model: whose encoder is read; nothing behind the cost maps is used.
        images: (3, h, w) each, RGB in 0..255.
        text: (T, D) embeddings.
        sizes: (H, W) of each result, a label map of int64.
    """
    costs, *_ = model.head.cost_maps(model.encoder(model.preprocess(images)), text)
    return [resize(cost.unsqueeze(0), size).argmax(1)[0] for cost, size in zip(costs, sizes, strict=True)]


def evaluate_baseline(cfg: Config, model: ERRSeg, pairs: SegmentationPairs) -> BenchmarkResult:
    """Evaluate :func:`cost_map_labels` on a data set."""
    spec = pairs.spec
    confusion = new_counts(spec, model.device, boundary_iou=False)
    with model.evaluating():
        text = model.embed_vocabulary(spec.vocabulary)
        for items in evaluation_batches(cfg, pairs, bar=False):
            labels = cost_map_labels(model, [item.image for item in items], text, [item.size for item in items])
            for item, label in zip(items, labels, strict=True):
                confusion.update(label, upload(item.label, model.device))
    return BenchmarkResult.from_counts(spec.name, confusion, spec.evaluated_classes, len(pairs))


@torch.no_grad()
def seconds_per_image(model: ERRSeg, images: Sequence[Tensor], text: Tensor, num_kept: int) -> tuple[float, float]:
    """Time the network on single images: medians of the whole and of ESCF and GUD together, in seconds."""
    whole: list[float] = []
    fusion: list[float] = []
    starts: list[float] = []
    parts: list[float] = []
    with model.evaluating(), ExitStack() as hooks:
        for module in (model.head.escf, model.head.gud):
            if module is not None:
                hooks.enter_context(module.register_forward_pre_hook(lambda *_: starts.append(_now(model))))
                hooks.enter_context(module.register_forward_hook(lambda *_: parts.append(_now(model) - starts.pop())))
        for image in [images[0], *images]:  # the first is a warm-up
            x = model.preprocess([image])
            parts.clear()
            start = _now(model)
            model(x, text, num_kept)
            whole.append(_now(model) - start)
            fusion.append(sum(parts))
    return median_high(whole[1:]), median_high(fusion[1:])


def _now(model: ERRSeg) -> float:
    synchronize(model.device)
    return time.perf_counter()


def evaluate_with(cfg: Config, model: ERRSeg, dataset: str, num_kept: int, folder: str) -> BenchmarkResult:
    """Evaluate a network on one data set with K classes kept, in a folder of ``OUTPUT_DIR``."""
    settings = cfg.clone()
    settings.MODEL.CRM.NUM_KEPT, settings.DATASETS.TEST = num_kept, [dataset]
    settings.OUTPUT_DIR = str(Path(cfg.OUTPUT_DIR) / folder)
    (result,) = evaluate(settings, model)
    return result


def measure(cfg: Config, model: ERRSeg) -> dict[str, dict[str, float]]:
    """Evaluate the baseline, the model with its K, and the model with all classes kept.

    Returns:
        Row title to metrics: mIoU in percent of each of ``GROUPS``, "ms" per image, and "fusion ms", the part of it
        that ESCF and GUD take.
    """
    pairs = SegmentationPairs(get_dataset(cfg.DATASETS.TEST[0]), cfg.DATASETS.ROOT).spread(cfg.TEST.NUM_IMAGES)
    text = model.embed_vocabulary(VOCABULARY)
    images = [image_to_tensor(pairs[i].image) for i in range(min(TIMED_IMAGES, len(pairs)))]
    rows = {BASELINE: group_miou(evaluate_baseline(cfg, model, pairs))}
    for num_kept in (cfg.MODEL.CRM.NUM_KEPT, len(VOCABULARY)):
        result = evaluate_with(cfg, model, cfg.DATASETS.TEST[0], num_kept, f"K{num_kept}")
        whole, fusion = seconds_per_image(model, images, text, num_kept)
        title = f"ERR-Seg, K = {num_kept}" + (" (all)" if num_kept == len(VOCABULARY) else "")
        rows[title] = {**group_miou(result), "ms": 1e3 * whole, "fusion ms": 1e3 * fusion}
    return rows
