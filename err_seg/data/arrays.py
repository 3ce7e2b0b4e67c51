"""Images in memory: arrays and tensors of any layout, type and range of values."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from err_seg.data.images import ImageError, read_image
from err_seg.utils.validation import ArgumentError, is_finite

CHANNEL_ORDERS = ("rgb", "bgr")
CHANNELS = (3, 4, 1)
"""Colours, colours with alpha, grey; where a shape may be read in two ways, the first wins."""
_WHITE = {torch.uint8: 255, torch.uint16: 65535}


@dataclass(frozen=True)
class ArrayFormat:
    """What the values of arrays and tensors mean.

    Attributes:
        value_range: the values that are black and white (and transparent and opaque); ``None``: (0, 255) of uint8 and
            (0, 65535) of uint16. All other types need it.
        channel_order: "rgb", or "bgr" as in OpenCV; alpha comes last in either case.

    Raises:
        ArgumentError: ``value_range`` is not two finite numbers, the lower first; or the order is another.
    """

    value_range: tuple[float, float] | None = None
    channel_order: str = "rgb"

    def __post_init__(self) -> None:
        given = self.value_range
        if given is not None and not (
            isinstance(given, (tuple, list))
            and len(given) == 2
            and all(map(is_finite, given))
            and 0 < float(given[1]) - float(given[0]) < math.inf
        ):
            raise ArgumentError(
                f"value_range must be (black, white), two finite numbers, the lower first, as in (0, 1); not {given!r}"
            )
        if not isinstance(self.channel_order, str) or self.channel_order not in CHANNEL_ORDERS:
            known = " or ".join(map(repr, CHANNEL_ORDERS))
            raise ArgumentError(f"channel_order must be {known}, not {self.channel_order!r}")

    def to_tensor(self, image: np.ndarray | Tensor, name: str = "the image") -> Tensor:
        """Copy an image to a (3, H, W) uint8 RGB tensor, on the device where it is.

        Args:
            image: (H, W) or (H, W, 1) grey, (H, W, 3) colours or (H, W, 4) colours with alpha, which are composited
                on white as those of files; of tensors also (C, H, W). Arrays may have any strides and byte order.
            name: what errors call it.

        Raises:
            ImageError: the shape or type is another, or values are out of range, without a range, or not finite.
        """
        tensor = self._eight_bit(_channels_last(image, name), name)
        if self.channel_order == "bgr" and tensor.shape[2] > 1:
            tensor = tensor[:, :, [2, 1, 0, *range(3, tensor.shape[2])]]
        if tensor.shape[2] != 3:
            as_file = Image.fromarray(tensor.squeeze(2).cpu().numpy())
            tensor = torch.from_numpy(read_image(as_file)).to(tensor.device)
        return tensor.permute(2, 0, 1)

    def _eight_bit(self, image: Tensor, name: str) -> Tensor:
        """Scale values to 0..255, rounding to the nearest; floating-point values may be half a step out of range."""
        white = _WHITE.get(image.dtype)
        low, high = self.value_range or (0, white)
        if (low, high) == (0, 255) and image.dtype == torch.uint8:
            return image
        type_name = str(image.dtype).removeprefix("torch.")
        if high is None:
            raise ImageError(
                f"{name} must be uint8 or uint16, or come with value_range=(black, white), such as (0, 1), since "
                f"{type_name} values have no standard range"
            )
        low, high = float(low), float(high)
        is_wide = image.dtype.itemsize > 2 and image.dtype != torch.float32
        values = image.to(torch.float64 if is_wide else torch.float32)
        found = [float(value) for value in values.aminmax()]
        if not all(math.isfinite(value) for value in found):
            raise ImageError(f"{name} must have finite values, but some are NaN or infinite")
        # what is computed may miss black and white by less than is seen
        tolerance = (high - low) / 510 if image.is_floating_point() else 0.0
        if found[0] < low - tolerance or found[1] > high + tolerance:
            raise ImageError(
                f"{name} must have values in {low:g}..{high:g}, but they go from {found[0]:g} to {found[1]:g}; "
                "correct value_range, or clip the values"
            )
        return ((values - low) * (255 / (high - low))).round().clamp_(0, 255).to(torch.uint8)


def _channels_last(image: np.ndarray | Tensor, name: str) -> Tensor:
    """Copy an image to (H, W, C), C being one of ``CHANNELS``."""
    if isinstance(image, Tensor) and image.is_meta:
        raise ImageError(f"{name} must have values, but it is a tensor on the device meta, which holds none")
    if isinstance(image, Tensor) and (image.layout != torch.strided or image.is_quantized):
        raise ImageError(f"{name} must be a dense tensor, neither sparse nor quantized: to_dense() or dequantize()")
    axes = (2, 0) if isinstance(image, Tensor) else (2,)
    shaped = image[:, :, None] if image.ndim == 2 else image
    places = [axis for count in CHANNELS for axis in axes if shaped.ndim == 3 and shaped.shape[axis] == count]
    is_number = not image.is_complex() if isinstance(image, Tensor) else image.dtype.kind in "buif"
    if not places or 0 in image.shape or not is_number:
        raise ImageError(
            f"{name} must be a path, an https address, encoded bytes, a binary file, a PIL image, or an array of "
            "H×W grey, H×W×3 RGB or H×W×4 RGBA values (a tensor also C×H×W); got shape "
            f"{tuple(image.shape)}, type {str(image.dtype).removeprefix('torch.')}. Several images in one array: "
            "list(array); channels first: array.transpose(1, 2, 0)"
        )
    if isinstance(shaped, Tensor):
        return shaped.detach().clone().movedim(places[0], 2)
    native = shaped.dtype.newbyteorder("=")
    return torch.from_numpy(np.array(shaped, dtype=native if native.itemsize <= 8 else np.float64, order="C"))
