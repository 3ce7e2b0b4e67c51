"""The loop over a benchmark's images: the network takes the next ones while a thread counts those before."""

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import torch

from err_seg.config import Config
from err_seg.data import EvaluationItem, SegmentationPairs, evaluation_loader
from err_seg.data.loader import ImageLoader
from err_seg.evaluation import ConfusionMatrix
from err_seg.evaluation.calibration import confidence_of
from err_seg.evaluation.results import PredictionFiles
from err_seg.evaluation.state import EvaluationProgress
from err_seg.evaluation.tta import evaluation_transform, segment_images
from err_seg.prediction.model import ERRSeg
from err_seg.prediction.segmentation import Segmentation
from err_seg.utils import heartbeat
from err_seg.utils.device import upload
from err_seg.utils.ordered_map import TimeShare, ordered_map
from err_seg.utils.processes import process_share
from err_seg.utils.progress import ProgressBar

Segmented = list[tuple[EvaluationItem, Segmentation]]


def evaluation_batches(cfg: Config, pairs: SegmentationPairs, *, bar: bool = True) -> Iterator[list[EvaluationItem]]:
    """Yield a data set's images and label maps in batches, at the sizes of evaluation, with a progress bar.

    Of the configuration, what :func:`evaluation_transform` reads, ``TEST.BATCH_SIZE`` and ``DATALOADER.NUM_WORKERS``
    count.
    """
    loader = _open_loader(cfg, pairs)
    with ProgressBar(total=len(pairs), desc=pairs.spec.name, unit="image", disable=not bar) as progress:
        for items in loader:
            yield items
            progress.update(len(items))


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
    spec, network = pairs.spec, TimeShare()
    rank, processes = process_share()
    options = {"rank": rank, "world_size": processes, "skip": progress.done, "pinned": model.device.type == "cuda"}
    loader = _open_loader(cfg, pairs, **options)
    share = len(range(rank, len(pairs), processes))
    title = spec.name + (f" (1 of {processes} shares)" if processes > 1 else "")
    left = sum(1 for _ in loader.sampler)

    def segment() -> Iterator[Segmented]:
        text = model.embed_vocabulary(spec.vocabulary)
        for items in loader:
            heartbeat.check()
            images, sizes = [item.image for item in items], [item.size for item in items]
            with network.timing("work"):
                results = segment_images(cfg, model, images, (text, num_kept, spec.vocabulary, sizes))
                for result in results:
                    _ = result.labels  # kept: made here, since two threads that compute hinder each other
                checked = [result.checked() for result in results]  # waits until the device is done
            yield list(zip(items, checked, strict=True))

    def count(segmented: Segmented) -> int:
        if cfg.TEST.SAVE:
            for item, result in segmented:
                files.save(item.index, item.image_path, result.labels.cpu().numpy())
        with progress.counting({item.index: len(result.kept) for item, result in segmented}):
            for item, result in segmented:
                confidence = confidence_of(result) if cfg.TEST.CALIBRATION else None
                counts.update(result.labels, upload(item.label, model.device), confidence)
        if progress.unsaved >= cfg.TEST.PROGRESS_PERIOD:
            progress.save(counts)
        return len(segmented)

    with (
        model.evaluating(),
        ProgressBar(total=share, initial=share - left, desc=title, unit="image", disable=rank > 0) as bar,
        progress.kept(counts),
        network.timing("whole"),
        closing(ordered_map(count, segment(), threads=1, ahead=1)) as counted,
    ):
        for images in counted:
            bar.update(images)
    return network


def _open_loader(cfg: Config, pairs: SegmentationPairs, **options: Any) -> ImageLoader:
    transform = evaluation_transform(cfg)
    return evaluation_loader(pairs, transform, cfg.TEST.BATCH_SIZE, cfg.DATALOADER.NUM_WORKERS, **options)
