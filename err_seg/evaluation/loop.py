"""The loop over a benchmark's images: the predictor takes the next ones while a thread counts those before."""

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import torch

from err_seg.config import Config
from err_seg.data import EvaluationItem, SegmentationPairs, evaluation_loader
from err_seg.data.loader import ImageLoader
from err_seg.data.transforms import EvaluationTransform
from err_seg.evaluation import ConfusionMatrix
from err_seg.evaluation.predictors import Answer, Predictor
from err_seg.evaluation.results import PredictionFiles
from err_seg.evaluation.state import EvaluationProgress, ImageRecord
from err_seg.evaluation.tta import evaluation_transform
from err_seg.utils import heartbeat
from err_seg.utils.device import upload
from err_seg.utils.ordered_map import TimeShare, ordered_map
from err_seg.utils.processes import process_share
from err_seg.utils.progress import ProgressBar

Answered = list[tuple[EvaluationItem, Answer]]


def evaluation_batches(cfg: Config, pairs: SegmentationPairs, *, bar: bool = True) -> Iterator[list[EvaluationItem]]:
    """Yield a data set's images and label maps in batches, at the sizes of evaluation, with a progress bar.

    Of the configuration, what :func:`evaluation_transform` reads, ``TEST.BATCH_SIZE`` and ``DATALOADER.NUM_WORKERS``
    count.
    """
    loader = _open_loader(cfg, pairs, evaluation_transform(cfg))
    with ProgressBar(total=len(pairs), desc=pairs.spec.name, unit="image", disable=not bar) as progress:
        for items in loader:
            yield items
            progress.update(len(items))


@torch.no_grad()
def count_images(
    cfg: Config,
    predictor: Predictor,
    pairs: SegmentationPairs,
    counts: ConfusionMatrix,
    progress: EvaluationProgress,
    files: PredictionFiles,
) -> TimeShare:
    """Segment and count this process's share of the images that are not done.

    Returns:
        How much of the time the predictor took.
    """
    spec, asking = pairs.spec, TimeShare()
    rank, processes = process_share()
    options = {"rank": rank, "world_size": processes, "skip": progress.done, "pinned": predictor.device.type == "cuda"}
    loader = _open_loader(cfg, pairs, predictor.transform, **options)
    share = len(range(rank, len(pairs), processes))
    title = spec.name + (f" (1 of {processes} shares)" if processes > 1 else "")
    left = sum(1 for _ in loader.sampler)

    def segment() -> Iterator[Answered]:
        ask = predictor.open(spec)
        for items in loader:
            heartbeat.check()
            with asking.timing("work"):
                answers = ask(items)
            yield list(zip(items, answers, strict=True))

    def count(answered: Answered) -> int:
        if cfg.TEST.SAVE:
            for item, answer in answered:
                files.save(item.index, item.image_path, answer.labels.cpu().numpy())
        with progress.counting() as images:
            for item, answer in answered:
                before = counts.class_pixels
                counts.update(answer.labels, upload(item.label, predictor.device), answer.confidence)
                images[item.index] = ImageRecord.of(answer.num_kept, counts.class_pixels - before)
        if progress.unsaved >= cfg.TEST.PROGRESS_PERIOD:
            progress.save(counts)
        return len(answered)

    with (
        predictor.evaluating(),
        ProgressBar(total=share, initial=share - left, desc=title, unit="image", disable=rank > 0) as bar,
        progress.kept(counts),
        asking.timing("whole"),
        closing(ordered_map(count, segment(), threads=1, ahead=1)) as counted,
    ):
        for images in counted:
            bar.update(images)
    return asking


def _open_loader(cfg: Config, pairs: SegmentationPairs, transform: EvaluationTransform, **options: Any) -> ImageLoader:
    return evaluation_loader(pairs, transform, cfg.TEST.BATCH_SIZE, cfg.DATALOADER.NUM_WORKERS, **options)
