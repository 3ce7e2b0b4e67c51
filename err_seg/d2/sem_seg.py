"""The ``sem_seg`` of detectron2's outputs: a T×H×W tensor for its users, stored as K small maps."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from err_seg.prediction.segmentation import Segmentation

ARGMAX = (torch.argmax, Tensor.argmax)
# computed without the values: T×H×W float32 at 847 classes and 12 megapixels is 41 GB
FACTS = (
    *(Tensor.size, Tensor.dim, Tensor.ndimension, Tensor.numel, Tensor.nelement, Tensor.__len__, Tensor.stride),
    *(Tensor.is_floating_point, Tensor.is_complex, Tensor.element_size, Tensor.get_device, Tensor.__hash__),
    *(
        getattr(Tensor, name).__get__
        for name in ("shape", "ndim", "dtype", "device", "layout", "grad_fn", "requires_grad")
    ),
    *(getattr(Tensor, f"is_{name}").__get__ for name in ("cuda", "mps", "cpu", "meta", "sparse", "quantized", "leaf")),
)


class CompactSemSeg(Tensor):
    """A (T, H, W) float32 tensor of probabilities whose values are computed only when they are used.

    ``argmax(dim=0)``, which evaluators and visualizers call, is computed from the K kept maps. For any other use an
    ordinary tensor is made. If ``num_foreground`` is given, all classes of the vocabulary from this index on are one
    class, "background", with the highest of their probabilities; T is then ``num_foreground + 1``.
    """

    segmentation: Segmentation
    num_foreground: int | None

    @staticmethod
    def __new__(cls, segmentation: Segmentation, num_foreground: int | None = None) -> "CompactSemSeg":
        """Make a tensor without storage."""
        classes = len(segmentation.vocabulary) if num_foreground is None else num_foreground + 1
        maps = segmentation.probabilities
        self = torch.Tensor._make_wrapper_subclass(
            cls, (classes, *segmentation.size), dtype=maps.dtype, device=maps.device
        )
        self.segmentation, self.num_foreground = segmentation, num_foreground
        return self

    def labels(self) -> Tensor:
        """(H, W) int64: the class of every pixel."""
        labels = self.segmentation.labels.long()
        return labels if self.num_foreground is None else labels.clamp(max=self.num_foreground)

    def dense(self) -> Tensor:
        """Return the (T, H, W) float32 tensor; bytes and errors as of :meth:`Segmentation.dense`."""
        dense = self.segmentation.dense()
        if self.num_foreground is None:
            return dense
        foreground, others = dense[: self.num_foreground], dense[self.num_foreground :]
        return torch.cat([foreground, others.amax(dim=0, keepdim=True)])

    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override]
        return f"CompactSemSeg({tuple(self.shape)}, {len(self.segmentation.kept)} classes kept)"

    @classmethod
    def __torch_function__(
        cls, func: Callable, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Compute ``argmax(dim=0)`` and properties of the shape from the maps; do all else on dense tensors."""
        kwargs = kwargs or {}
        if func in ARGMAX and isinstance(args[0], cls) and _is_over_classes(*args[1:], **kwargs):
            return args[0].labels()
        if func in FACTS:
            with torch._C.DisableTorchFunctionSubclass():
                return func(*args, **kwargs)
        return func(*_dense(args), **_dense(kwargs))

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Callable, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """On dense tensors, do the operations that reach PyTorch without passing ``__torch_function__``."""
        return func(*_dense(args), **_dense(kwargs or {}))


def _is_over_classes(dim: int | None = None, keepdim: bool = False) -> bool:
    return dim in (0, -3) and not keepdim


def _dense(arguments: Any) -> Any:
    return tree_map_only(CompactSemSeg, CompactSemSeg.dense, arguments)
