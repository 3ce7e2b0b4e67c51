"""How an evaluation sees an image: as a whole, in windows, or in several views whose probabilities are averaged."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from err_seg.config import Config
from err_seg.data import EvaluationTransform
from err_seg.data.corruptions import require_package
from err_seg.modeling.err_seg import STRIDE
from err_seg.modeling.layers import resize
from err_seg.prediction.model import ERRSeg
from err_seg.prediction.refine import refined
from err_seg.prediction.segmentation import Segmentation, split_results

Asked = tuple[Tensor, int | None, tuple[str, ...], Sequence[tuple[int, int]]]
"""What is asked of images: ``text``, ``num_kept``, ``vocabulary`` and ``sizes``, as of :meth:`ERRSeg.segment`."""


class View(NamedTuple):
    """How the network sees an image: resized to size×size, mirrored or not."""

    size: int
    mirrored: bool


def evaluation_views(cfg: Config) -> list[View]:
    """List the views that ``TEST.AUG`` asks for; the first is how an image is seen without augmentation."""
    size, aug = cfg.INPUT.SIZE, cfg.TEST.AUG
    if not aug.ENABLED:
        return [View(size, False)]
    # the grid's side must be even (stride 32) and a multiple of ESCF's reduction ratios
    step = STRIDE * math.lcm(2, cfg.MODEL.ESCF.SSR_RATIO, cfg.MODEL.ESCF.CSR_RATIO)
    sizes = [size, *(max(step, round(size * scale / step) * step) for scale in aug.SCALES if scale != 1)]
    mirrored = (False, True) if aug.FLIP else (False,)
    return [View(size, flip) for size in dict.fromkeys(sizes) for flip in mirrored]


def evaluation_transform(cfg: Config) -> EvaluationTransform:
    """Return what happens to images before the network sees them.

    They are corrupted, if ``TEST.CORRUPTION`` says so, and resized; with ``TEST.TILE`` or ``TEST.REFINE`` they are not.
    """
    min_size = 0 if cfg.TEST.TILE or cfg.TEST.REFINE else cfg.INPUT.MIN_SIZE_TEST
    return EvaluationTransform(min_size, cfg.INPUT.MAX_SIZE_TEST, corruption_of(cfg))


def corruption_of(cfg: Config) -> tuple[str, int] | None:
    """Return name and severity of ``TEST.CORRUPTION``; ``None``: images stay as they are.

    Raises:
        ConfigError: the package that corrupts images is not installed.
    """
    if not cfg.TEST.CORRUPTION.NAME:
        return None
    require_package()
    return cfg.TEST.CORRUPTION.NAME, cfg.TEST.CORRUPTION.SEVERITY


def segment_images(cfg: Config, model: ERRSeg, images: Sequence[Tensor], asked: Asked) -> list[Segmentation]:
    """Segment images as ``TEST.TILE``, ``TEST.AUG`` and ``TEST.REFINE`` say."""
    if cfg.TEST.TILE:
        results = model.segment(images, *asked, cfg.INPUT.SIZE, cfg.TEST.TILE, cfg.TEST.BATCH_SIZE)
    else:
        results = segment_views(model, images, *asked, evaluation_views(cfg))
    return list(map(refined, results, images)) if cfg.TEST.REFINE else results


def segment_views(
    model: ERRSeg,
    images: Sequence[Tensor],
    text: Tensor,
    num_kept: int | None,
    vocabulary: tuple[str, ...],
    sizes: Sequence[tuple[int, int]],
    views: Sequence[View],
) -> list[Segmentation]:
    """Segment images in every view and average the probabilities; arguments are those of :meth:`ERRSeg.segment`.

    All views, at least one, keep the classes that the first one chose, so that their maps are of the same classes. The
    average has the resolution of the largest view.
    """
    side = max(view.size for view in views) // 4
    seen: list[Tensor] = []
    for view in views:
        pixels = model.preprocess(images, view.size)
        features = model.encoder(pixels.flip(-1) if view.mirrored else pixels)
        if not seen:
            kept, class_scores = model.head.choose(features, text, num_kept)
        probabilities = model.head.segment(features, text, kept).float().sigmoid()
        seen.append(resize(probabilities.flip(-1) if view.mirrored else probabilities, (side, side)))
    average = sum(seen[1:], start=seen[0]) / len(views)
    options = (model.head.crm.is_adaptive, model.calibration)
    return split_results(average, kept, class_scores, vocabulary, sizes, *options)
