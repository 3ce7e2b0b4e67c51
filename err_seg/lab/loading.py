"""Data sets as evaluation reads them."""

from collections.abc import Iterator

from err_seg.config import Config
from err_seg.data import EvaluationItem, EvaluationTransform, SegmentationPairs, evaluation_loader
from err_seg.utils.progress import ProgressBar


def evaluation_batches(cfg: Config, pairs: SegmentationPairs, *, bar: bool = True) -> Iterator[list[EvaluationItem]]:
    """Yield a data set's images and label maps in batches, at the sizes of evaluation, with a progress bar.

    Of the configuration, ``INPUT.MIN_SIZE_TEST``, ``INPUT.MAX_SIZE_TEST``, ``TEST.BATCH_SIZE`` and
    ``DATALOADER.NUM_WORKERS`` count.
    """
    transform = EvaluationTransform(cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST)
    loader = evaluation_loader(pairs, transform, cfg.TEST.BATCH_SIZE, cfg.DATALOADER.NUM_WORKERS)
    with ProgressBar(total=len(pairs), desc=pairs.spec.name, unit="image", disable=not bar) as progress:
        for items in loader:
            yield items
            progress.update(len(items))
