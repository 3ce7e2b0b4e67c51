"""The numbers of a result: the K kept classes' maps and their indices, at any size on request."""

from collections.abc import Callable, Iterator
from copy import copy
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TypeVar

import psutil
import torch
from torch import Tensor

from err_seg.modeling.layers import resize, resized_part
from err_seg.prediction.calibration import Calibration
from err_seg.prediction.contrast import Contrast
from err_seg.utils.device import check_finite
from err_seg.utils.messages import listed
from err_seg.utils.validation import ArgumentError, check_size

M = TypeVar("M", bound="ClassMaps")
UNLABELED = -1
"""The label of pixels that belong to no class of the vocabulary."""
CLASSES_AT_A_TIME = 8
PIXELS_AT_A_TIME = 2**24
"""Labels and scores of larger results are made strip by strip, so that few maps of their size are in memory."""


class TooLargeError(MemoryError):
    """Maps would take most of the memory; the message says how many bytes, and what takes less."""


@dataclass(frozen=True, eq=False)
class ClassMaps:
    """The base of :class:`~err_seg.Segmentation`: what the network computes of one image.

    The K maps are held at the network's own resolution and resized (bilinear, of probabilities) when they are asked
    for, so that 847 classes on a 12-megapixel image cost only megabytes until more is asked for. Of what is computed
    on request, only the labels are kept: 1 byte per pixel up to 255 classes, 2 up to 32,767.

    Attributes:
        probabilities: (K, S/4, S/4) float32 in [0, 1]; of an image labelled in windows (K, h, w), its size following
            the image's.
        kept: (K,) int64 indices of the kept classes, ascending, into :attr:`names`.
        vocabulary: the T class names.
        size: (H, W) of the results: the image's own size, unless another was asked for.
        class_scores: (T + C,) float32, CRM's score of each of :attr:`names`.
        source: reads the same image, (3, H, W) uint8, once more; ``None`` if that is not known.
        contrast: the C names that competed with the vocabulary, whose pixels belong to none of its classes.
        calibration: of the model, which :attr:`confidence` needs; ``None`` if it has none.
    """

    probabilities: Tensor
    kept: Tensor
    vocabulary: tuple[str, ...]
    size: tuple[int, int]
    class_scores: Tensor
    source: Callable[[], Tensor] | None = None
    contrast: Contrast = field(default_factory=Contrast)
    calibration: Calibration | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """All names that the network chose from: the vocabulary, then the contrast names."""
        return (*self.vocabulary, *self.contrast.names)

    def __repr__(self) -> str:
        """Name the size and the kept classes."""
        (height, width), names = self.size, [self.names[label] for label in self.kept.tolist()]
        return f"Segmentation({height}×{width} pixels, {len(names)} of {len(self.names)} classes: {listed(names)})"

    @cached_property
    def labels(self) -> Tensor:
        """(H, W) integers: for every pixel the vocabulary index of the most probable class; computed once.

        Where a contrast name is the most probable, it is :data:`UNLABELED`, and the type is then signed.

        The type is the smallest that holds the T classes: uint8 up to 255 (255 itself is never a label), int16 up to
        32,767, else int32. NumPy indexes with any of them; call ``.long()`` before indexing a torch tensor and before
        arithmetic.
        """
        kind = label_type(len(self.names))
        if self.contrast.names:
            kind = torch.promote_types(kind, torch.int8)
        if self.size[0] * self.size[1] > PIXELS_AT_A_TIME:  # smaller ones always find room, and are asked for most
            self._check_room("labels", None, kind)
        labels = torch.empty(self.size, dtype=kind, device=self.kept.device)
        for rows, _, best in self._best():
            labels[rows] = best
        return labels.masked_fill_(labels >= len(self.vocabulary), UNLABELED) if self.contrast.names else labels

    @property
    def scores(self) -> Tensor:
        """(H, W) float32 in [0, 1]: the probability of that class; made anew at every call.

        Raises:
            TooLargeError: this would take more than half of the free memory.
        """
        self._check_room("scores", None, torch.float32)
        scores = self.probabilities.new_empty(self.size)
        for rows, best, _ in self._best():
            scores[rows] = best
        return scores

    @property
    def lead(self) -> Tensor:
        """(H, W) float32 in [0, 1]: the most probable class's share of the best two classes' probabilities.

        Where only one class was kept, it is the probability of that class. Made anew at every call.

        Raises:
            TooLargeError: this would take more than half of the free memory.
        """
        self._check_room("lead", None, torch.float32)
        lead = self.probabilities.new_empty(self.size)
        for rows, best, labels in self._best():
            second = self._best_of(rows, labels)[0] if len(self.kept) > 1 else 1 - best
            lead[rows] = best / (best + second).clamp(min=torch.finfo(best.dtype).tiny)
        return lead

    @property
    def confidence(self) -> Tensor:
        """(H, W) float32 in [0, 1]: the calibrated probability that the label is right; made anew at every call.

        Raises:
            ArgumentError: the model is not calibrated.
            TooLargeError: this would take more than half of the free memory.
        """
        if self.calibration is None:
            raise ArgumentError(
                "the model is not calibrated, so nothing says how probable it is that a label is right; calibrate it "
                "on labelled images with: err-seg calibrate MODEL --datasets NAME (`scores` and `lead` need no "
                "calibration)"
            )
        return self.calibration.confidence(self.lead)

    @property
    def maps(self) -> Tensor:
        """(K, H, W) float32 in [0, 1]: the probability of each kept class; made anew at every call.

        Raises:
            TooLargeError: this would take more than half of the free memory.
        """
        advice = "`probabilities` are the same maps at the network's resolution, and "
        self._check_room("maps", len(self.kept), torch.float32, advice)
        return self._resized(slice(None), slice(0, self.size[0]))

    def dense(self) -> Tensor:
        """Return (T, H, W) float32 probabilities, 0 for classes that were not kept: 4·T·H·W bytes.

        Raises:
            TooLargeError: this would take more than half of the free memory.
        """
        advice = f"`kept` and `maps` say the same of the {len(self.kept)} kept classes, and all others are 0; "
        self._check_room("dense()", len(self.vocabulary), torch.float32, advice)
        dense = self.probabilities.new_zeros(len(self.vocabulary) + 1, *self.size)  # the last one for contrast names
        for kept, maps in self._portions(slice(0, self.size[0])):
            dense[kept.clamp(max=len(self.vocabulary))] = maps
        return dense[:-1]

    def resized(self: M, size: tuple[int, int]) -> M:
        """Return the same result at another size (H, W).

        Raises:
            ArgumentError: ``size`` is not a size.
        """
        size = check_size(size)
        return self if size == self.size else replace(self, size=size)

    def to(self: M, device: torch.device | str) -> M:
        """Return the same result on another device, with its labels if they were computed already, and its image."""
        moved = copy(self)
        vars(moved).update((name, part.to(device)) for name, part in vars(self).items() if hasattr(part, "to"))
        return moved

    def checked(self: M) -> M:
        """Return this result once its device has computed it.

        Raises:
            NonFiniteError: the network computed NaN or infinity.
        """
        check_finite(self.probabilities, "the network's output holds")
        return self

    def cpu(self: M) -> M:
        """Return the same result on the CPU."""
        return self.to("cpu")

    def _best(self) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """Yield some rows at a time: which, the highest probability of every pixel, and its class."""
        height, width = self.size
        step = height if height * width <= PIXELS_AT_A_TIME else max(1, PIXELS_AT_A_TIME // (4 * width))
        for top in range(0, height, step):
            rows = slice(top, min(top + step, height))
            yield rows, *self._best_of(rows)

    def _best_of(self, rows: slice, other_than: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return the highest probability of every pixel of some rows, and its class; ``other_than`` leaves one out."""
        best = self.probabilities.new_full((rows.stop - rows.start, self.size[1]), -1.0)
        labels = torch.zeros(best.shape, dtype=label_type(len(self.names)), device=best.device)
        for kept, maps in self._portions(rows):
            if other_than is not None:
                maps = maps.masked_fill(kept[:, None, None] == other_than, -1.0)
            score, place = maps.max(dim=0)
            better = score > best
            best = torch.where(better, score, best)
            labels = torch.where(better, kept.to(labels.dtype)[place], labels)
        return best, labels

    def _portions(self, rows: slice) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield a few kept classes (k,) and some rows of their maps (k, rows, W) at a time, to save memory."""
        for first in range(0, len(self.kept), CLASSES_AT_A_TIME):
            classes = slice(first, first + CLASSES_AT_A_TIME)
            yield self.kept[classes], self._resized(classes, rows)

    def _resized(self, classes: slice, rows: slice) -> Tensor:
        """Some rows (k, rows, W) of some kept classes' maps, at the size of the results."""
        return self._enlarged(self.probabilities[classes], rows)

    def _enlarged(self, maps: Tensor, rows: slice) -> Tensor:
        """Resize maps (k, h, w) to the size of the results, but only make some rows."""
        height, width = self.size
        if rows == slice(0, height):
            return resize(maps.unsqueeze(0), self.size)[0]
        return resized_part(maps, self.size, rows, slice(0, width))

    def _check_room(self, what: str, classes: int | None, kind: torch.dtype, advice: str = "") -> None:
        height, width = self.size
        shape = ("" if classes is None else f"{classes} classes × ") + f"{height} × {width} pixels"
        needed = (classes or 1) * height * width * kind.itemsize
        what = f"{what} ({shape} in {str(kind).removeprefix('torch.')})"
        check_room(what, needed, self.kept.device, f"{advice}resized() makes results of fewer pixels")


def label_type(num_classes: int) -> torch.dtype:
    """Return the smallest integer type for labels of T classes; see :attr:`ClassMaps.labels`."""
    return torch.uint8 if num_classes <= 255 else torch.int16 if num_classes <= 32767 else torch.int32


def check_room(what: str, needed: int, device: torch.device, advice: str) -> None:
    """Refuse ``what`` would take so many bytes, more than half of the free memory; ``advice`` says what takes less.

    Raises:
        TooLargeError: it would.
    """
    free = free_memory(device)
    if needed > free / 2:
        raise TooLargeError(
            f"{what} would take {needed / 1e9:.1f} GB, more than half of the {free / 1e9:.1f} GB that are free on "
            f"{device}; {advice}"
        )


def free_memory(device: torch.device) -> int:
    """Return the bytes that may still be allocated on a device."""
    if device.type == "cuda" and torch.cuda.is_available():
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + unused
    return psutil.virtual_memory().available
