"""What lower precision costs: every result beside that in fp32, and both beside the ground truth."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from err_seg.config import Config
from err_seg.data import EvaluationItem, SegmentationPairs
from err_seg.evaluation.benchmarks import new_counts
from err_seg.evaluation.loop import evaluation_batches
from err_seg.evaluation.predictors import benchmark_num_kept
from err_seg.evaluation.results import text_table
from err_seg.evaluation.tta import segment_images
from err_seg.prediction.model import ERRSeg
from err_seg.prediction.segmentation import Segmentation
from err_seg.utils.device import upload


@dataclass(frozen=True)
class PrecisionError:
    """How results in one precision differ from those in fp32.

    Attributes:
        dataset: the data set's name.
        precision: "fp32", "fp16" or "bf16".
        images: number of images.
        miou: mIoU, in percent.
        same_kept: share of the images that keep the same classes, in 0..1.
        same_labels: share of the pixels with the same label, in 0..1.
        mean_error, max_error: of the kept classes' probabilities, over the images that keep the same; NaN without any.
    """

    dataset: str
    precision: str
    images: int
    miou: float
    same_kept: float
    same_labels: float
    mean_error: float
    max_error: float


@torch.no_grad()
def measure_precision_error(
    cfg: Config, model: ERRSeg, pairs: SegmentationPairs, precisions: Sequence[str]
) -> list[PrecisionError]:
    """Segment a data set as evaluation does, in fp32 and in each of the precisions, with a progress bar.

    Args:
        cfg: K, sizes and batch size are as in evaluation.
        model: in evaluation mode; its own precision does not matter.
        precisions: of "fp16" and "bf16".
    """
    spec, num_kept = pairs.spec, benchmark_num_kept(cfg, pairs.spec)
    precisions = list(dict.fromkeys(("fp32", *precisions)))
    counts = {precision: new_counts(spec, model.device, boundary_iou=False) for precision in precisions}
    differences: dict[str, list[tuple[float, ...]]] = {precision: [] for precision in precisions}

    def segment(precision: str, items: Sequence[EvaluationItem]) -> list[Segmentation]:
        with model.evaluating(precision):
            asked = model.embed_vocabulary(spec.vocabulary), num_kept, spec.vocabulary, [item.size for item in items]
            return segment_images(cfg, model, [item.image for item in items], asked)

    for items in evaluation_batches(cfg, pairs):
        found = {precision: segment(precision, items) for precision in precisions}
        for precision, results in found.items():
            for item, result, exact in zip(items, results, found["fp32"], strict=True):
                counts[precision].update(result.labels, upload(item.label, model.device))
                differences[precision].append(_difference(result, exact))
    rows = []
    for precision in precisions:
        miou = counts[precision].metrics(spec.evaluated_classes)["mIoU"]
        same_kept, same_labels, pixels, mean, largest = np.array(differences[precision]).T
        same = float(same_kept.mean()), float(same_labels.sum() / pixels.sum())
        errors = float(mean[same_kept > 0].mean()) if same_kept.any() else float("nan"), float(np.fmax.reduce(largest))
        rows.append(PrecisionError(spec.name, precision, len(pairs), miou, *same, *errors))
    return rows


def _difference(result: Segmentation, exact: Segmentation) -> tuple[float, ...]:
    """Compare an image's results.

    Returns:
        Whether both keep the same classes, pixels with the same label, all pixels, and mean and largest error, NaN
        where other classes are kept.
    """
    same_kept, same_labels = torch.equal(result.kept, exact.kept), int((result.labels == exact.labels).sum())
    mean = largest = float("nan")
    if same_kept:
        error = (result.probabilities - exact.probabilities).abs().double()
        mean, largest = error.mean().item(), error.max().item()
    return same_kept, same_labels, result.labels.numel(), mean, largest


def precision_table(results: Sequence[PrecisionError]) -> str:
    """Lay results out as aligned text that is Markdown, too; shares in percent."""
    header = ["data set", "precision", "mIoU", "same classes kept %", "same labels %", "mean error", "largest error"]
    rows = []
    for r in results:
        errors = f"{r.mean_error:.5f}", f"{r.max_error:.3f}"
        rows.append([r.dataset, r.precision, r.miou, 100 * r.same_kept, 100 * r.same_labels, *errors])
    return text_table(header, rows)
