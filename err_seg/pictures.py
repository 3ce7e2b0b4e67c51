"""Whatever a user may call a picture, as a tensor."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from err_seg.data.images import read_image


class PictureError(ValueError):
    """Something that is not a picture; the message names what was got and what was expected."""


def picture_to_tensor(picture: Any) -> Tensor:
    """Turn a picture into a (3, H, W) uint8 RGB tensor.

    Args:
        picture: a path, a PIL image, an H×W×3 uint8 RGB array or tensor, or a 3×H×W uint8 tensor.

    Raises:
        PictureError: anything else.
        ImageReadError: a file that cannot be read as a picture.
    """
    if isinstance(picture, (str, Path, Image.Image)):
        return torch.from_numpy(read_image(picture)).permute(2, 0, 1)
    if not isinstance(picture, (np.ndarray, Tensor)):
        raise PictureError(
            f"a picture is a path, a PIL image or an H×W×3 uint8 RGB array or tensor, not {type(picture).__name__}"
        )
    tensor = picture if isinstance(picture, Tensor) else torch.tensor(picture)
    is_channels_last = tensor.dim() == 3 and tensor.shape[2] == 3
    is_channels_first = isinstance(picture, Tensor) and tensor.dim() == 3 and tensor.shape[0] == 3
    if tensor.dtype != torch.uint8 or not (is_channels_last or is_channels_first) or tensor.numel() == 0:
        raise PictureError(
            f"a picture array is H×W×3 uint8, RGB in 0..255; got shape {tuple(tensor.shape)}, type {tensor.dtype}. "
            "Grey or alpha: pass a PIL image or the file itself; floats in 0..1: multiply by 255 and convert"
        )
    return tensor.permute(2, 0, 1) if is_channels_last else tensor
