"""The figures of the miniature world: seen and unseen classes apart, the training-free baseline, and the time."""

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from err_seg.config import Config, ConfigError
from err_seg.data import DatasetSpec, EvaluationTransform, SegmentationPairs, evaluation_loader, find_dataset
from err_seg.evaluation import BenchmarkResult, ConfusionMatrix
from err_seg.mini.vocabulary import SEEN, UNSEEN, UNSEEN_COMBINATIONS, UNSEEN_WORDS, VOCABULARY
from err_seg.modeling.layers import resize
from err_seg.prediction.model import ERRSeg
from err_seg.utils.device import upload

logger = logging.getLogger(__name__)

GROUPS: dict[str, tuple[int, ...]] = {
    "seen": SEEN,
    "unseen": UNSEEN,
    "unseen combinations": UNSEEN_COMBINATIONS,
    "unseen words": UNSEEN_WORDS,
    "all": tuple(range(len(VOCABULARY))),
}
"""Classes over which IoU is averaged; all figures of a row come from one evaluation over the 60 names."""


def group_miou(result: BenchmarkResult) -> dict[str, float]:
    """Average IoU, in percent, over each of ``GROUPS``; those with a class that no image shows are left out."""
    iou = [result.metrics[f"IoU-{name}"] for name in VOCABULARY]
    absent = {i for i, pixels in enumerate(result.class_pixels) if not pixels}
    groups = {group: classes for group, classes in GROUPS.items() if absent.isdisjoint(classes)}
    return {group: sum(iou[i] for i in classes) / len(classes) for group, classes in groups.items()}


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


def open_test_scenes(cfg: Config) -> SegmentationPairs:
    """Open what :func:`group_miou` is measured on, and warn where it leaves figures out.

    Raises:
        ConfigError, DatasetError: see :func:`check_test_scenes`; or the data set is not on disk.
    """
    pairs = SegmentationPairs(check_test_scenes(cfg), cfg.DATASETS.ROOT)
    shown = set().union(*(np.unique(pairs.load_label(index)).tolist() for index in range(len(pairs))))
    if absent := [name for index, name in enumerate(VOCABULARY) if index not in shown]:
        logger.warning(
            "%d of %d classes occur in none of the %d images of %s, such as %s: figures over them are left empty",
            *(len(absent), len(VOCABULARY), len(pairs), pairs.spec.name, absent[0]),
        )
    return pairs


@torch.no_grad()
def cost_map_labels(model: ERRSeg, images: Sequence[Tensor], text: Tensor, sizes: Sequence[tuple[int, int]]) -> list:
    """Label images by CLIP alone: the arg-max over all classes of the first cost map, resized to each image.

    Args:
        model: whose encoder is read; nothing behind the cost maps is used.
        images: (3, h, w) each, RGB in 0..255.
        text: (T, D) embeddings.
        sizes: (H, W) of each result.

    Returns:
        A label map (H, W) int64 per image.
    """
    costs, *_ = model.head.cost_maps(model.encoder(model.preprocess(images)), text)
    return [resize(cost.unsqueeze(0), size).argmax(1)[0] for cost, size in zip(costs, sizes, strict=True)]


def evaluate_baseline(cfg: Config, model: ERRSeg, pairs: SegmentationPairs) -> BenchmarkResult:
    """Evaluate :func:`cost_map_labels` on a data set."""
    spec = pairs.spec
    confusion = ConfusionMatrix(
        spec.num_evaluated_classes, spec.ignore_label, background=spec.num_foreground, device=model.device
    )
    transform = EvaluationTransform(cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST)
    with model.evaluating():
        text = model.embed_vocabulary(spec.vocabulary)
        for items in evaluation_loader(pairs, transform, cfg.TEST.BATCH_SIZE, cfg.DATALOADER.NUM_WORKERS):
            labels = cost_map_labels(model, [item.image for item in items], text, [item.size for item in items])
            for item, label in zip(items, labels, strict=True):
                confusion.update(label, upload(item.label, model.device))
    return BenchmarkResult.from_counts(spec.name, confusion, spec.evaluated_classes, len(pairs))


@torch.no_grad()
def seconds_per_image(model: ERRSeg, images: Sequence[Tensor], text: Tensor, num_kept: int) -> tuple[float, float]:
    """Time the network on single images: medians of the whole and of ESCF and GUD together, in seconds."""
    whole, fusion = [], []
    with model.evaluating():
        for image in [images[0], *images]:  # the first is a warm-up
            x = model.preprocess([image])
            with _time_in(model, [m for m in (model.head.escf, model.head.gud) if m is not None]) as parts:
                start = _now(model)
                model(x, text, num_kept)
                whole.append(_now(model) - start)
            fusion.append(sum(parts))
    return _median(whole[1:]), _median(fusion[1:])


@contextmanager
def _time_in(model: ERRSeg, modules: Sequence[torch.nn.Module]) -> Iterator[list[float]]:
    """Collect the seconds that each call of the modules takes within a ``with`` block."""
    seconds: list[float] = []
    starts: list[float] = []
    hooks = []
    for module in modules:
        hooks.append(module.register_forward_pre_hook(lambda *_: starts.append(_now(model))))
        hooks.append(module.register_forward_hook(lambda *_: seconds.append(_now(model) - starts.pop())))
    try:
        yield seconds
    finally:
        for hook in hooks:
            hook.remove()


def _now(model: ERRSeg) -> float:
    if model.device.type == "cuda":
        torch.cuda.synchronize(model.device)
    return time.perf_counter()


def _median(values: Sequence[float]) -> float:
    return sorted(values)[len(values) // 2]
