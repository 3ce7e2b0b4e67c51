"""Test-time augmentation: several sizes and mirror images of a picture, their probabilities averaged."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from fvcore.common.config import CfgNode
from torch import Tensor

from err_seg.modeling.err_seg import STRIDE, ERRSeg, Prediction
from err_seg.modeling.layers import resize
from err_seg.modeling.segmentation import Segmentation


class View(NamedTuple):
    """How the network sees a picture: resized to size×size, mirrored or not."""

    size: int
    mirrored: bool


def evaluation_views(cfg: CfgNode) -> list[View]:
    """List the views that ``TEST.AUG`` asks for; the first is the picture as it is evaluated without augmentation."""
    size, aug = cfg.INPUT.SIZE, cfg.TEST.AUG
    if not aug.ENABLED:
        return [View(size, False)]
    # the grid's side must be even (stride 32) and a multiple of the ratios that ESCF reduces it by
    step = STRIDE * math.lcm(2, cfg.MODEL.ESCF.SSR_RATIO, cfg.MODEL.ESCF.CSR_RATIO)
    sizes = [size, *(max(step, round(size * scale / step) * step) for scale in aug.SCALES if scale != 1)]
    mirrored = (False, True) if aug.FLIP else (False,)
    return [View(size, flip) for size in dict.fromkeys(sizes) for flip in mirrored]


def segment_views(
    model: ERRSeg,
    images: Sequence[Tensor],
    text: Tensor,
    num_kept: int | None,
    vocabulary: tuple[str, ...],
    sizes: Sequence[tuple[int, int]],
    views: Sequence[View],
) -> list[Segmentation]:
    """Segment pictures in every view and average the probabilities.

    All views keep the classes that the first one chose, so that their maps stand for the same classes. The average is
    held at the resolution of the largest view.

    Args:
        model: the network, in evaluation mode.
        images: B pictures (3, h, w), RGB in 0..255.
        text: (T, D) embeddings of the vocabulary.
        num_kept: K; ``None`` is the model's own.
        vocabulary: the T class names.
        sizes: (H, W) of the B results.
        views: at least one, of which the first chooses the classes.

    Returns:
        One result a picture.
    """
    side = max(view.size for view in views) // 4
    first = _see(model, images, text, num_kept, views[0])
    total = resize(first.logits, (side, side))
    for view in views[1:]:
        # classes that occur in labels are kept before all others, so K of them are kept alone
        seen = _see(model, images, text, first.kept.shape[1], view, labels=first.kept.unsqueeze(1))
        total = total + resize(seen.logits, (side, side))
    rows = zip(total / len(views), first.kept, sizes, first.class_scores, strict=True)
    return [Segmentation(maps, kept, vocabulary, size, scores) for maps, kept, size, scores in rows]


def _see(
    model: ERRSeg,
    images: Sequence[Tensor],
    text: Tensor,
    num_kept: int | None,
    view: View,
    labels: Tensor | None = None,
) -> Prediction:
    """Run one view; gives a prediction with probabilities (B, K, size/4, size/4) in the logits' place, not mirrored."""
    pixels = model.preprocess(images, view.size)
    prediction = model(pixels.flip(-1) if view.mirrored else pixels, text, num_kept, labels)
    probabilities = prediction.logits.float().sigmoid()
    return prediction._replace(logits=probabilities.flip(-1) if view.mirrored else probabilities)
