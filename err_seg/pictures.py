"""Whatever a user may call a picture, as a tensor."""

import os
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from err_seg.data.images import read_image

Picture = str | os.PathLike[str] | Image.Image | np.ndarray | Tensor


class PictureError(ValueError):
    """Something that is not a picture; the message names what was got and what was expected."""


def is_single(pictures: Any) -> bool:
    """Whether this is one thing that may be a picture, and not a list, tuple, generator, ... of such things."""
    return isinstance(pictures, str | bytes) or hasattr(pictures, "shape") or not isinstance(pictures, Iterable)


def picture_to_tensor(picture: Any, name: str = "the picture") -> Tensor:
    """Turn a picture into a (3, H, W) uint8 RGB tensor.

    Args:
        picture: a path, a PIL image, an H×W×3 uint8 RGB array (of any strides) or tensor, or a 3×H×W uint8 tensor.
        name: what errors call it, where it is no file.

    Raises:
        PictureError: anything else.
        ImageReadError: a file or PIL image that cannot be read as a picture.
    """
    if isinstance(picture, str | os.PathLike | Image.Image):
        return torch.from_numpy(read_image(picture)).permute(2, 0, 1)
    if not isinstance(picture, np.ndarray | Tensor):
        raise PictureError(
            f"{name} must be a path, a PIL image or an H×W×3 uint8 RGB array or tensor, not {type(picture).__name__}"
        )
    is_channels_last = picture.ndim == 3 and picture.shape[2] == 3
    is_channels_first = isinstance(picture, Tensor) and picture.ndim == 3 and picture.shape[0] == 3
    type_name = str(picture.dtype).removeprefix("torch.")
    if type_name != "uint8" or not (is_channels_last or is_channels_first) or 0 in picture.shape:
        raise PictureError(
            f"{name} must be an H×W×3 uint8 array, RGB in 0..255; got shape {tuple(picture.shape)}, type {type_name}. "
            "Grey or alpha: pass a PIL image or the file itself; floats in 0..1: multiply by 255 and convert; several "
            "pictures in one array: list(array)"
        )
    # a copy, since torch knows neither negative strides nor arrays that are read-only
    tensor = picture if isinstance(picture, Tensor) else torch.from_numpy(np.array(picture, order="C"))
    return tensor.permute(2, 0, 1) if is_channels_last else tensor


def upload(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy a tensor to a device; from the CPU to CUDA by way of pinned memory, so that nothing waits for the device."""
    if device.type != "cuda" or tensor.device.type != "cpu":
        return tensor.to(device)
    pinned = tensor if tensor.is_pinned() else torch.empty_like(tensor, pin_memory=True).copy_(tensor)
    return pinned.to(device, non_blocking=True)
