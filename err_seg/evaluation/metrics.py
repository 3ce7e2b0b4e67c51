"""Metrics of semantic segmentation from a confusion matrix, under detectron2's names and rules, in percent."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

SUMMARY_METRICS = ("mIoU", "mIoU-v0.6", "fwIoU", "mACC", "pACC")
SEEN_METRICS = ("mIoU-seen", "mIoU-unseen", "hIoU")
IMAGE_METRICS = ("mIoU-I", "mIoU-C", "mask-IoU", "mask-FP", "mask-FN")


def segmentation_metrics(confusion: NDArray[np.int64] | torch.Tensor, class_names: Sequence[str]) -> dict[str, float]:
    """Compute every metric of a benchmark, in float64.

    Let tp, gt and pred be the numbers of a class's pixels that are right, in the ground truth, and predicted. Then:

    - ``IoU-<class>`` = tp / (gt + pred - tp) and ``ACC-<class>`` = tp / gt, NaN for a class without ground truth;
    - ``mIoU``: mean IoU over the classes with ground truth (detectron2's main branch, since July 2022);
    - ``mIoU-v0.6``: the same sum divided by the number of classes with ground truth *or* predictions (detectron2's
      release v0.6; never above ``mIoU``);
    - ``fwIoU``: IoU weighted by the classes' share of the ground truth;
    - ``mACC``: mean ACC over the classes with ground truth; ``pACC``: share of all pixels that are right.

    If no pixel was counted, every metric is NaN (detectron2 differs only in fwIoU, which is 0 there).

    Args:
        confusion: (N, N) integer counts, [prediction, ground truth] as in
            :class:`~err_seg.evaluation.confusion.ConfusionMatrix`; a row N is of pixels predicted as none of the N.
        class_names: N names; equal names are told apart as :func:`unique_names` says.

    Returns:
        Name to percent, in detectron2's order.

    Raises:
        ValueError: the matrix does not match the number of names, or has negative entries.
    """
    confusion = _as_counts(confusion)
    n = len(class_names)
    if confusion.shape not in ((n, n), (n + 1, n)):
        raise ValueError(
            f"{n} class names need a matrix of {n} columns and {n} or {n + 1} rows, found {confusion.shape}"
        )
    names = unique_names(class_names)

    tp = confusion.diagonal().astype(np.float64)
    gt = confusion.sum(axis=0).astype(np.float64)
    pred = confusion.sum(axis=1)[:n].astype(np.float64)
    present = gt > 0
    iou = ratio(tp, gt + pred - tp, present)
    acc = ratio(tp, gt, present)
    classes, seen = int(present.sum()), int((present | (pred > 0)).sum())
    total = float(gt.sum())

    metrics = {
        "mIoU": _mean(iou[present], classes),
        "mIoU-v0.6": _mean(iou[present], seen),
        "fwIoU": float(np.sum(iou[present] * (gt[present] / total))) if total else float("nan"),
    }
    metrics |= {f"IoU-{name}": float(value) for name, value in zip(names, iou, strict=True)}
    metrics |= {"mACC": _mean(acc[present], classes), "pACC": _mean(tp, total)}
    metrics |= {f"ACC-{name}": float(value) for name, value in zip(names, acc, strict=True)}
    return {name: 100 * value for name, value in metrics.items()}


def seen_metrics(iou: Sequence[float], seen: Sequence[int], unseen: Sequence[int]) -> dict[str, float]:
    """Average IoU over the classes that training has seen, over the others, and take the harmonic mean of the two.

    Classes whose IoU is NaN are left out; the values of a group with no others are NaN.
    """
    counted = (np.array([iou[i] for i in group if not np.isnan(iou[i])]) for group in (seen, unseen))
    old, new = (_mean(values, len(values)) for values in counted)
    harmonic = 2 * old * new / (old + new) if old + new else 0.0
    return dict(zip(SEEN_METRICS, (old, new, harmonic), strict=True))


def image_metrics(counts: NDArray[np.integer[Any]]) -> dict[str, float]:
    """Compute metrics in which each image counts equally, however large its objects are.

    Of Wang et al., "Revisiting Evaluation Metrics for Semantic Segmentation", NeurIPS 2023, with the IoU of each class
    in each image whose ground truth has it:

    - ``mIoU-I``: mean over an image's classes, then over the images;
    - ``mIoU-C``: mean over a class's images, then over the classes.

    Of Huang et al., "Revisit the Open Nature of Open Vocabulary Semantic Segmentation", ICLR 2025, with the masks of an
    image's label map in place of thresholds on probabilities; each is a mean over the images, where an image without
    such masks counts as 0:

    - ``mask-IoU``: IoU of masks whose class is both predicted and in the ground truth;
    - ``mask-FP``, ``mask-FN``: share of the image that masks cover whose class is only predicted, or only in the ground
      truth.

    Args:
        counts: (I, 3, N): of each image and class the pixels that are right, in the ground truth, and predicted.

    Returns:
        Name to percent, NaN without any class.
    """
    right, truth, predicted = np.moveaxis(counts.astype(np.float64), 1, 0)  # I×N each
    there, found = truth > 0, predicted > 0
    iou = np.divide(right, truth + predicted - right, out=np.zeros_like(right), where=there | found)
    area = truth.sum(axis=1, keepdims=True)

    def mean_over(axis: int, values: NDArray[np.float64], where: NDArray[np.bool_]) -> NDArray[np.float64]:
        number = where.sum(axis)
        return np.divide((values * where).sum(axis), number, out=np.zeros(len(number)), where=number > 0)

    labelled, shown = area[:, 0] > 0, there.any(axis=0)
    means = (
        mean_over(1, iou, there)[labelled],
        mean_over(0, iou, there)[shown],
        mean_over(1, iou, there & found)[labelled],
        mean_over(1, predicted / np.maximum(area, 1), found & ~there)[labelled],
        mean_over(1, truth / np.maximum(area, 1), there & ~found)[labelled],
    )
    return {name: 100 * _mean(values, len(values)) for name, values in zip(IMAGE_METRICS, means, strict=True)}


def class_pixels(confusion: NDArray[np.int64] | torch.Tensor) -> list[int]:
    """Count each class's pixels in the ground truth: N exact integers from an (N, N) matrix."""
    return [int(pixels) for pixels in _as_counts(confusion).sum(axis=0)]


def unique_names(names: Sequence[str]) -> list[str]:
    """Tell equal names apart by their index: ["bag", "cup", "bag"] gives ["bag (0)", "cup", "bag (2)"].

    Names that occur once stay as they are. Vocabularies that use only the first synonym (A-847) contain equal names,
    which must not overwrite each other's metrics.
    """
    unique = list(names)
    while len(set(unique)) < len(unique):
        counts = Counter(unique)
        unique = [f"{name} ({index})" if counts[name] > 1 else name for index, name in enumerate(unique)]
    return unique


def _as_counts(confusion: NDArray[np.int64] | torch.Tensor) -> NDArray[np.int64]:
    counts = np.asarray(confusion.cpu() if isinstance(confusion, torch.Tensor) else confusion)
    if not np.issubdtype(counts.dtype, np.integer):
        raise ValueError(f"a confusion matrix holds integer counts, found dtype {counts.dtype}")
    if counts.size and counts.min() < 0:
        raise ValueError(f"a confusion matrix holds counts of pixels, found {counts.min()}")
    return counts.astype(np.int64)


def ratio(part: NDArray[Any], whole: NDArray[Any], valid: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Divide where ``valid``, NaN elsewhere."""
    return np.divide(part, whole, out=np.full(len(part), np.nan), where=valid)


def _mean(values: NDArray[np.float64], count: float) -> float:
    return float(np.sum(values) / count) if count else float("nan")
