"""The training losses over every class at every pixel, computed from the kept classes alone.

The loss against labels is binary cross-entropy; the loss against a teacher is the divergence from its probabilities.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from err_seg.modeling.crm import count_class_pixels, kept_class_labels
from err_seg.modeling.layers import resize
from err_seg.utils.images import BACKGROUND


def segmentation_loss(
    logits: Tensor,
    kept: Tensor,
    labels: Tensor,
    num_classes: int,
    *,
    ignored_are_negatives: bool = True,
    num_pixels: Tensor | None = None,
) -> Tensor:
    """Mean binary cross-entropy over B·T·pixels.

    A class that was not kept has the logit −∞ and no labelled pixels, so it adds nothing: the sum runs over the K kept
    classes and is divided by T. With logits x and targets y, −y log σ(x) − (1−y) log(1−σ(x)) = softplus(x) − y·x. So
    one-hot targets need not be written out: a pixel's second term is the logit of its own class.

    Args:
        logits: (B, K, h, w) of the kept classes, any float type; resized bilinearly to the labels' size.
        kept: (B, K) int64 class indices.
        labels: (B, H, W) int64; a value outside 0..T−1 is ignored, and so is a class that was not kept; ``BACKGROUND``
            is never ignored, but a negative of every class.
        num_classes: T.
        ignored_are_negatives: count ignored pixels as negatives of every class, as the published models were trained;
            otherwise leave them out of sum and mean.
        num_pixels: if they are left out, a scalar to divide by instead of the number of pixels that count. For a part
            of a batch it is the mean of :func:`count_pixels` over all parts, so that the mean of the parts' losses is
            the batch's loss.

    Returns:
        The loss, a float32 scalar; 0 if no pixel counts.
    """
    logits = resize(logits.float(), labels.shape[-2:])  # B×K×H×W
    places = kept_class_labels(labels, kept, num_classes).unsqueeze(1)  # B×1×H×W
    labelled = places >= 0
    own_logit = logits.gather(1, places.clamp(min=0)) * labelled
    negative = F.softplus(logits)
    if ignored_are_negatives:
        return (negative.sum() - own_logit.sum()) / (num_classes * labels.numel())
    counted = labelled | (labels == BACKGROUND).unsqueeze(1)
    total = (negative * counted).sum() - own_logit.sum()
    if num_pixels is None:
        num_pixels = counted.sum().clamp(min=1)
    return total / (num_classes * num_pixels)


def distillation_loss(
    logits: Tensor,
    targets: Tensor,
    kept: Tensor,
    labels: Tensor,
    num_classes: int,
    *,
    ignored_are_negatives: bool = True,
    num_pixels: Tensor | None = None,
) -> Tensor:
    """Mean Kullback-Leibler divergence of class maps from a teacher's, over the B·T·pixels of the loss against labels.

    With logits x and the teacher's probabilities p, it is the cross-entropy softplus(x) − p·x minus the entropy of p.
    So it is 0 where both agree; the gradient is σ(x) − p.

    Args:
        logits: (B, K, h, w) of the kept classes, any float type.
        targets: (B, K, h', w') float32 in [0, 1], without gradient; resized bilinearly to the logits' size.
        kept, labels, num_classes, ignored_are_negatives, num_pixels: as for :func:`segmentation_loss`; pixels that are
            ignored there are ignored here.

    Returns:
        The loss, a float32 scalar; 0 if no pixel counts.
    """
    logits, size = logits.float(), logits.shape[-2:]
    targets = resize(targets, size)
    entropy = -torch.special.xlogy(targets, targets) - torch.special.xlogy(1 - targets, 1 - targets)
    divergence = F.softplus(logits) - targets * logits - entropy  # B×K×h×w
    if ignored_are_negatives:
        return divergence.sum() / (num_classes * len(labels) * size.numel())
    nearest = F.interpolate(labels.unsqueeze(1).float(), size, mode="nearest-exact")[:, 0].long()
    labelled = (kept_class_labels(nearest, kept, num_classes) >= 0) | (nearest == BACKGROUND)
    if num_pixels is None:
        counted = labelled.sum().clamp(min=1)
    else:
        counted = num_pixels * size.numel() / labels.shape[-2:].numel()
    return (divergence * labelled.unsqueeze(1)).sum() / (num_classes * counted)


def count_pixels(labels: Tensor, num_classes: int, num_kept: int | None) -> Tensor:
    """Count, from labels alone, the pixels over which a loss without ignored pixels is averaged.

    These are the pixels whose class CRM keeps in training, each image's K most frequent classes, and background.

    Args:
        labels: (B, H, W) int64; a value outside 0..T−1 is ignored, except ``BACKGROUND``.
        num_classes: T.
        num_kept: K; ``None`` keeps all.

    Returns:
        An int64 scalar.
    """
    pixels = count_class_pixels(labels, num_classes)
    if num_kept is not None and num_kept < num_classes:
        pixels = pixels.topk(num_kept, dim=1).values
    return pixels.sum() + (labels == BACKGROUND).sum()
