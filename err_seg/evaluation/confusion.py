"""Confusion matrix of semantic segmentation: exact, mergeable, on any device."""

import copy
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor

from err_seg.evaluation.calibration import BINS, GROUPS, count_pixels, group_metrics
from err_seg.evaluation.metrics import segmentation_metrics
from err_seg.utils.processes import sum_over_processes

C = TypeVar("C", bound="ConfusionMatrix")


class ConfusionMatrix:
    """Counts of pixels by (predicted class, ground-truth class).

    Rows are predictions, columns are ground truth (detectron2's orientation): ``matrix[p, g]`` pixels of class g
    were predicted as class p. Counts are int64 and exact. Pixels with the label ``ignore_label`` never count,
    whatever was predicted there.

    Args:
        num_classes: N, the number of ground-truth classes.
        ignore_label: label value of pixels that are left out; any integer outside 0..N-1.
        background: if the vocabulary is larger than the ground truth (PAS-20b: 59 names, 21 classes), the class that
            every prediction >= ``background`` (or -1, with ``others``) counts as; it must be N-1. None: predictions are
            0..N-1.
        device: where the counts are kept; predictions and labels from elsewhere are moved there.
        others: whether predictions may be none of the classes: -1, or N and above. Unless they are the background, a
            last row N of the matrix counts them: wrong for the class that is there, and a false positive of none.

    Attributes:
        further: metrics of one's own, see ``err_seg.plugins.METRICS``.
        confidences: (GROUPS, BINS, 2) counts of pixels, see :mod:`err_seg.evaluation.calibration`; ``None``
            unless :meth:`count_confidence` was called.

    Raises:
        ValueError: ``ignore_label`` is a class, or ``background`` is not the last class.
    """

    further: Sequence[Callable[[NDArray[np.int64], Sequence[str]], dict[str, float]]] = ()
    confidences: Tensor | None = None

    def __init__(
        self,
        num_classes: int,
        ignore_label: int,
        background: int | None = None,
        device: torch.device | str = "cpu",
        *,
        others: bool = False,
    ) -> None:
        if num_classes < 1:
            raise ValueError(f"num_classes must be at least 1, found {num_classes}")
        if 0 <= ignore_label < num_classes:
            raise ValueError(
                f"ignore_label {ignore_label} is one of the classes 0..{num_classes - 1}; choose a value outside"
            )
        if background is not None and background != num_classes - 1:
            raise ValueError(f"background must be the last class {num_classes - 1}, found {background}")
        self.num_classes = num_classes
        self.ignore_label = ignore_label
        self.background = background
        self.others = others
        self._rows = num_classes + (others and background is None)
        self._counts = torch.zeros(self._rows * num_classes, dtype=torch.int64, device=device)

    @property
    def matrix(self) -> Tensor:
        """The counts: (N, N) int64 on this matrix's device, [prediction, ground truth]; a view, not a copy.

        With ``others`` and no background it is (N + 1, N).
        """
        return self._counts.view(self._rows, self.num_classes)

    @property
    def class_pixels(self) -> Tensor:
        """Of each class the pixels that are right, in the ground truth, and predicted: (3, N) int64, a copy."""
        matrix = self.matrix
        return torch.stack([matrix.diagonal(), matrix.sum(0), matrix.sum(1)[: self.num_classes]])

    @property
    def device(self) -> torch.device:
        """Where the counts are kept."""
        return self._counts.device

    def count_confidence(self, seen_and_unseen: Sequence[Sequence[int]] = ()) -> None:
        """From now on also count confidences, of these two groups of predicted classes and of all others apart."""
        self._seen_and_unseen = [list(group) for group in seen_and_unseen]
        self._groups = self._counts.new_full((self._rows,), GROUPS - 1)
        for group, classes in enumerate(self._seen_and_unseen):
            self._groups[classes] = group
        self.confidences = self._counts.new_zeros(GROUPS, BINS, 2)

    def update(self, prediction: Tensor, label: Tensor, confidence: Tensor | None = None) -> None:
        """Count one image or a batch.

        Args:
            prediction: (H, W) or (B, H, W), any integer dtype: class indices, and -1 with ``others``.
            label: same shape, any integer dtype: class indices or ``ignore_label``.
            confidence: same shape, in 0..1, where confidences are counted.

        Raises:
            TypeError: a tensor is not of an integer dtype.
            ValueError: the shapes differ, or a counted pixel's prediction or label is outside its range; nothing is
                counted then.
        """
        for name, tensor in (("prediction", prediction), ("label", label)):
            if tensor.dtype == torch.bool or tensor.is_floating_point() or tensor.is_complex():
                raise TypeError(f"{name} must hold integer class indices, found dtype {tensor.dtype}")
        if prediction.shape != label.shape or label.dim() not in (2, 3):
            raise ValueError(
                "prediction and label must share one shape (H, W) or (B, H, W), "
                f"found {tuple(prediction.shape)} and {tuple(label.shape)}"
            )
        if label.numel() == 0:
            return
        # 16-bit unsigned tensors support hardly any operators: widen before anything else.
        prediction = prediction.to(self.device, torch.int64)
        label = label.to(self.device, torch.int64)

        counted = label != self.ignore_label
        prediction = torch.where(counted, prediction, 0)
        self._check_values(prediction, torch.where(counted, label, 0))
        if self.background is not None or self.others:
            last = self._rows - 1  # the background, or none of the classes
            prediction = torch.where(prediction < 0, last, prediction.clamp(max=last))

        self._count(prediction, label, counted)
        if self.confidences is not None:
            assert confidence is not None
            values, found = confidence.to(self.device)[counted], prediction[counted]
            self.confidences += count_pixels(values, found == label[counted], self._groups[found], GROUPS)

    def _count(self, prediction: Tensor, label: Tensor, counted: Tensor) -> None:
        """Count the pixels where ``counted``, of maps that :meth:`update` has checked and moved to the device."""
        cells = len(self._counts)
        cell = torch.where(counted, prediction * self.num_classes + label, cells).flatten()  # one for ignored pixels
        # not bincount, which waits for the device to return the largest value
        counts = self._counts.new_zeros(cells + 1)
        self._counts += counts.scatter_add_(0, cell, counts.new_ones(1).expand_as(cell))[:-1]

    def merge(self: C, other: C) -> C:
        """Add another matrix's counts to this one, in place, and return this one.

        Raises:
            ValueError: the two differ in classes, ignore label or background.
        """
        if self._settings() != other._settings():
            raise ValueError(
                f"confusion matrices of different settings cannot be merged: {self._settings()} and "
                f"{other._settings()}; evaluate both on the same benchmark"
            )
        self._counts += other._counts.to(self.device)
        if self.confidences is not None and other.confidences is not None:
            self.confidences += other.confidences.to(self.device)
        return self

    def __add__(self: C, other: C) -> C:
        return copy.deepcopy(self).merge(other)

    def all_reduce(self: C) -> C:
        """Replace the counts by their sum over all processes (call it once, at the end), and return this matrix.

        Does nothing if ``torch.distributed`` is not initialised.
        """
        if dist.is_initialized():
            # NCCL reduces only CUDA tensors; gloo is meant for CPU tensors.
            device = torch.device("cuda") if dist.get_backend() == "nccl" else torch.device("cpu")
            self._counts = sum_over_processes(self._counts.to(device)).to(self.device)
            if self.confidences is not None:
                self.confidences = sum_over_processes(self.confidences.to(device)).to(self.device)
        return self

    def metrics(self, class_names: Sequence[str]) -> dict[str, float]:
        """Compute :func:`~err_seg.evaluation.metrics.segmentation_metrics` and the ``further`` metrics, in percent.

        Raises:
            ValueError: two metrics have the same name.
        """
        found = segmentation_metrics(self.matrix, class_names)
        found |= {} if self.confidences is None else group_metrics(self.confidences)
        for metric in self.further:
            added = metric(self.matrix.cpu().numpy(), class_names)
            if both := found.keys() & added.keys():
                raise ValueError(f"TEST.METRICS: there is already a metric {min(both)!r}; rename one of the two")
            found |= added
        return found

    def state(self) -> dict[str, Any]:
        """Settings and non-zero counts as JSON-able values; ``entries`` lists [prediction, ground truth, pixels]."""
        matrix = self.matrix.cpu()
        cells = matrix.nonzero()
        entries = torch.cat([cells, matrix[cells[:, 0], cells[:, 1]].unsqueeze(1)], dim=1)
        state = {**self._settings(), "entries": entries.tolist()}
        if self.confidences is not None:
            state["confidences"] = self.confidences.tolist()
        return state

    @classmethod
    def from_state(cls: type[C], state: dict[str, Any], device: torch.device | str = "cpu") -> C:
        """Rebuild a matrix from :meth:`state`, exactly.

        Raises:
            ValueError: a key is missing, or an entry is not a valid (class, class, pixels) triple.
        """
        keys = ("num_classes", "ignore_label", "background", "entries")
        missing = [key for key in keys if key not in state]
        if missing:
            raise ValueError(f"the state of a confusion matrix needs {', '.join(keys)}; missing: {', '.join(missing)}")
        n = state["num_classes"]
        confusion = cls(n, state["ignore_label"], state["background"], others=state.get("others", False))
        for entry in state["entries"]:
            prediction, label, pixels = entry
            if not (0 <= prediction < confusion._rows and 0 <= label < n and pixels >= 0):
                raise ValueError(f"entry {entry} of a confusion matrix's state is outside classes 0..{n - 1}")
            confusion.matrix[prediction, label] += pixels
        confusion._counts = confusion._counts.to(device)
        if "confidences" in state:
            confusion.count_confidence(state["seen_and_unseen"])
            confusion.confidences = torch.tensor(state["confidences"], device=device)
        return confusion

    def _settings(self) -> dict[str, Any]:
        own = {"num_classes": self.num_classes, "ignore_label": self.ignore_label, "background": self.background}
        own |= {"others": True} if self.others else {}
        return own if self.confidences is None else {**own, "seen_and_unseen": self._seen_and_unseen}

    def _check_values(self, prediction: Tensor, label: Tensor) -> None:
        """Raise if a value is out of range; all four bounds are copied to the host at once."""
        bounds = torch.stack([prediction.amin(), prediction.amax(), label.amin(), label.amax()]).tolist()
        last = self.num_classes - 1
        for value in bounds[:2]:
            if value < -self.others or (value > last and self.background is None and not self.others):
                allowed = "-1 and above" if self.others else f"0..{last}" if self.background is None else "0 and above"
                raise ValueError(
                    f"prediction holds {value}, expected {allowed}; does the vocabulary fit this benchmark's classes?"
                )
        for value in bounds[2:]:
            if not 0 <= value <= last:
                raise ValueError(
                    f"label holds {value}, expected 0..{last} or the ignore label {self.ignore_label}; "
                    "is this the converted label file of this benchmark?"
                )
