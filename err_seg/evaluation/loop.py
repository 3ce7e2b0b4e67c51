"""The loop over a benchmark's images: the network takes the next ones while a thread counts those before."""

from collections.abc import Iterator
from contextlib import closing
from functools import partial

import torch

from err_seg.config import Config
from err_seg.data import EvaluationItem, EvaluationTransform, SegmentationPairs, evaluation_loader
from err_seg.data.loader import ImageLoader
from err_seg.evaluation import ConfusionMatrix
from err_seg.evaluation.prediction_files import PredictionFiles
from err_seg.evaluation.state import EvaluationProgress
from err_seg.evaluation.tta import evaluation_views, segment_views
from err_seg.prediction.model import ERRSeg
from err_seg.prediction.segmentation import Segmentation
from err_seg.utils import heartbeat
from err_seg.utils.device import upload
from err_seg.utils.ordered_map import TimeShare, ordered_map
from err_seg.utils.processes import process_share
from err_seg.utils.progress import ProgressBar

Segmented = tuple[list[EvaluationItem], list[Segmentation]]


@torch.no_grad()
def count_images(
    cfg: Config,
    model: ERRSeg,
    pairs: SegmentationPairs,
    num_kept: int | None,
    counts: ConfusionMatrix,
    progress: EvaluationProgress,
    files: PredictionFiles,
) -> TimeShare:
    """Segment and count this process's share of the images that are not done; return how much time the network took."""
    rank, processes = process_share()
    loader = evaluation_loader(
        pairs,
        EvaluationTransform(cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST),
        cfg.TEST.BATCH_SIZE,
        cfg.DATALOADER.NUM_WORKERS,
        rank=rank,
        world_size=processes,
        skip=progress.done,
        pinned=model.device.type == "cuda",
    )
    share = len(range(rank, len(pairs), processes))
    of_all = f" (1 of {processes} shares)" if processes > 1 else ""
    bar = ProgressBar(
        total=share,
        initial=share - sum(1 for _ in loader.sampler),
        desc=pairs.spec.name + of_all,
        unit="image",
        disable=rank > 0,
    )
    network, count = TimeShare(), partial(_count, cfg, model, counts, progress, files)
    with model.evaluating(), bar, progress.kept(counts), network.span():
        segmented = _segment(cfg, model, pairs, num_kept, loader, network)
        with closing(ordered_map(count, segmented, threads=1, ahead=1)) as counted:
            for images in counted:
                bar.update(images)
    return network


def _segment(
    cfg: Config,
    model: ERRSeg,
    pairs: SegmentationPairs,
    num_kept: int | None,
    loader: ImageLoader,
    network: TimeShare,
) -> Iterator[Segmented]:
    """Yield batches and what the network says about them."""
    vocabulary, views = pairs.spec.vocabulary, evaluation_views(cfg)
    text = model.embed_vocabulary(vocabulary)
    for items in loader:
        heartbeat.check()
        images, sizes = [item.image for item in items], [item.size for item in items]
        with network.working():
            results = segment_views(model, images, text, num_kept, vocabulary, sizes, views)
            for result in results:
                _ = result.labels  # kept: made here, since two threads that compute hinder each other
            results[-1].kept.cpu()  # waits until the device is done
        yield items, results


def _count(
    cfg: Config,
    model: ERRSeg,
    counts: ConfusionMatrix,
    progress: EvaluationProgress,
    files: PredictionFiles,
    segmented: Segmented,
) -> int:
    """Write the files of a batch's images, count their pixels, note them as done, and return how many they are."""
    items, results = segmented
    if cfg.TEST.SAVE:
        for item, result in zip(items, results, strict=True):
            files.save(item.index, item.image_path, result.labels.cpu().numpy())
    with progress.counting({item.index: len(result.kept) for item, result in zip(items, results, strict=True)}):
        for item, result in zip(items, results, strict=True):
            counts.update(result.labels, upload(item.label, model.device))
    if progress.unsaved >= cfg.TEST.PROGRESS_PERIOD:
        progress.save(counts)
    return len(items)
