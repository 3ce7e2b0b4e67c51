"""Boundary IoU: how well predicted contours match the ground truth's (Cheng et al., "Boundary IoU", CVPR 2021)."""

import math
from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from err_seg.evaluation.confusion import ConfusionMatrix
from err_seg.evaluation.metrics import ratio, unique_names

B = TypeVar("B", bound="BoundaryConfusion")
IGNORED = -1


def boundary_width(height: int, width: int, dilation_ratio: float = 0.02) -> int:
    """Width of the boundary band in pixels: 2 % of the image's diagonal, rounded, at least 1."""
    return max(1, round(dilation_ratio * math.sqrt(height**2 + width**2)))


def is_boundary(labels: Tensor, width: int) -> Tensor:
    """Tell which pixels lie within ``width`` of their own region's contour.

    A pixel is on the boundary where the (2·width+1)² window around it leaves its region: reaches another label or the
    outside of the image. This gives, for all classes at once, each mask minus that mask eroded ``width`` times by 3x3.

    Args:
        labels: (H, W) or (B, H, W) integer label maps, 0..2^24-1, or -1 for pixels that belong to no region.
        width: in pixels, at least 1.

    Returns:
        bool, same shape.
    """
    padded = F.pad(labels.float(), (1, 1, 1, 1), value=IGNORED)
    changes = _window_max(padded, width) != -_window_max(-padded, width)
    return changes[..., 1:-1, 1:-1]


class BoundaryConfusion(ConfusionMatrix):
    """A confusion matrix that also counts what the boundary IoU of every class needs.

    Both maps are cut to their boundary bands; a class's boundary IoU is the IoU of its bands. Ignored pixels are first
    cut out of both maps and count as outside every region. Like the IoU, it is NaN for classes without ground truth.
    (detectron2's evaluator has other numbers: it subtracts a grey-value erosion from the *label map*, so that its band
    holds differences of labels, and its class 0 all interiors.)

    Args:
        num_classes, ignore_label, background, device, others: as in :class:`ConfusionMatrix`; bands are computed on the
            device.
        dilation_ratio: width of the band relative to the image's diagonal.

    Raises:
        ValueError: as for :class:`ConfusionMatrix`.
    """

    def __init__(
        self,
        num_classes: int,
        ignore_label: int,
        background: int | None = None,
        device: torch.device | str = "cpu",
        *,
        others: bool = False,
        dilation_ratio: float = 0.02,
    ) -> None:
        super().__init__(num_classes, ignore_label, background, device, others=others)
        self.bands = ConfusionMatrix(num_classes + 1, IGNORED, device=device)  # the last: pixels off the boundary
        self.dilation_ratio = dilation_ratio

    def _count(self, prediction: Tensor, label: Tensor, counted: Tensor) -> None:
        super()._count(prediction, label, counted)
        height, width = label.shape[-2:]
        band = boundary_width(height, width, self.dilation_ratio)
        maps = [labels.where(counted, IGNORED) for labels in (prediction, label)]
        prediction, label = (torch.where(is_boundary(labels, band), labels, self.num_classes) for labels in maps)
        self.bands.update(prediction, label.where(counted, IGNORED))

    def merge(self: B, other: B) -> B:
        """Add another one's counts in place; ValueError if the settings differ."""
        if self.dilation_ratio != other.dilation_ratio:
            widths = f"{self.dilation_ratio} and {other.dilation_ratio}"
            raise ValueError(f"counts of boundaries of different widths cannot be merged: {widths} of the diagonal")
        self.bands.merge(other.bands)
        return super().merge(other)

    def all_reduce(self: B) -> B:
        """Sum over all processes, as :meth:`ConfusionMatrix.all_reduce`."""
        self.bands.all_reduce()
        return super().all_reduce()

    def state(self) -> dict[str, Any]:
        """Everything as plain JSON-able values; ``regions`` is the state of the plain confusion matrix."""
        return {"dilation_ratio": self.dilation_ratio, "regions": super().state(), "bands": self.bands.state()}

    @classmethod
    def from_state(cls: type[B], state: dict[str, Any], device: torch.device | str = "cpu") -> B:
        """Rebuild from :meth:`state`, exactly."""
        boundary = super().from_state(state["regions"], device)
        boundary.dilation_ratio = state["dilation_ratio"]
        boundary.bands = ConfusionMatrix.from_state(state["bands"], device)
        return boundary

    def metrics(self, class_names: Sequence[str]) -> dict[str, float]:
        """Compute the metrics, in percent, under detectron2's names.

        Returns:
            Those of the confusion matrix, then ``mBoundaryIoU`` (mean over the classes that have a value), then for
            each class ``BoundaryIoU-<class>`` and ``min(IoU, B-Iou)-<class>``, the smaller of it and the IoU. The class
            docstring says when a boundary IoU is NaN; the minimum is NaN wherever the IoU is NaN.
        """
        metrics = super().metrics(class_names)
        bands = self.bands.matrix.cpu().numpy()
        tp, gt = bands.diagonal(), bands.sum(axis=0)
        union = gt + bands.sum(axis=1) - tp
        boundary_iou = ratio(tp, union, gt > 0)[:-1]
        valid = boundary_iou[~np.isnan(boundary_iou)]
        metrics["mBoundaryIoU"] = 100 * float(valid.mean()) if len(valid) else math.nan
        for name, value in zip(unique_names(class_names), 100 * boundary_iou, strict=True):
            iou = metrics[f"IoU-{name}"]
            metrics[f"BoundaryIoU-{name}"] = float(value)
            metrics[f"min(IoU, B-Iou)-{name}"] = iou if math.isnan(iou) else float(np.fmin(iou, value))
        return metrics


def _window_max(maps: Tensor, radius: int) -> Tensor:
    """Maximum over the (2·radius+1)² window of (H, W) or (B, H, W) float maps, computed along each axis in turn."""
    size = 2 * radius + 1
    batched = maps.reshape(-1, 1, *maps.shape[-2:])
    rows = F.max_pool2d(batched, (size, 1), stride=1, padding=(radius, 0))
    return F.max_pool2d(rows, (1, size), stride=1, padding=(0, radius)).reshape(maps.shape)
