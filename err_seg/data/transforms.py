"""From an image as read to what the model takes, in training and in evaluation.

Every random choice comes from a generator that the caller gives, so that a result depends on nothing else: not on
the number of loader processes, nor on what was drawn before.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as F

from err_seg.data.corruptions import corrupt

GREY = 128  # what images are padded with
MAX_CROP_DRAWS = 10


def shortest_edge_size(height: int, width: int, min_size: int, max_size: int) -> tuple[int, int]:
    """Size (height, width) of an image whose shortest side is to be ``min_size``, its longest at most ``max_size``.

    All are in pixels. The sides keep their ratio and are rounded half up, at least one pixel; 0 as ``min_size`` leaves
    the size as it is.
    """
    if min_size == 0:
        return height, width
    scale = min(min_size / min(height, width), max_size / max(height, width))
    return max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5))


def _resize(image: Tensor, size: tuple[int, int]) -> Tensor:
    if image.shape[-2:] == size:
        return image
    return F.resize(image, list(size), interpolation=InterpolationMode.BILINEAR, antialias=True)


def _to_tensor(image: np.ndarray) -> Tensor:
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(f"expected an image of shape (H, W, 3) and dtype uint8, found {image.shape} {image.dtype}")
    return torch.from_numpy(image).permute(2, 0, 1)


@dataclass
class EvaluationTransform:
    """Resize an image for evaluation.

    Attributes:
        min_size: length of the shortest side in pixels; 0 leaves the image's size.
        max_size: most pixels of the longest side.
        corruption: name and severity of what the image is corrupted with before; ``None``: with nothing.
    """

    min_size: int = 800
    max_size: int = 1333
    corruption: tuple[str, int] | None = None

    def __call__(self, image: np.ndarray) -> Tensor:
        """(H, W, 3) uint8 RGB → (3, h, w) uint8, by antialiased bilinear interpolation."""
        tensor = _to_tensor(corrupt(image, *self.corruption) if self.corruption else image)
        height, width = tensor.shape[1:]
        return _resize(tensor, shortest_edge_size(height, width, self.min_size, self.max_size)).contiguous()


@dataclass
class TrainingTransform:
    """Resize, crop, colour jitter, flip and pad an image and its label map for training.

    Attributes:
        crop_size: S, side of the square that comes out, in pixels.
        min_sizes: lengths of the shortest side after the resize, in pixels; one is drawn.
        max_size: most pixels of the longest side after the resize.
        color_jitter: "ssd" (:class:`SSDColorJitter`) or "none".
        flip_prob: probability of a horizontal flip.
        single_category_max_area: a crop is drawn again, up to ten times, while one class covers more than this share
            of its labelled pixels, where background counts as a class; 1.0 accepts the first.
        ignore_label: what the label map is padded with.
        further: transforms of image (3, S, S) uint8, label map (S, S) int64 and ``torch.Generator`` to such a pair,
            which follow in this order.

    Raises:
        ValueError: a value out of its range, or the pair that a further transform returns.
    """

    crop_size: int
    min_sizes: Sequence[int] = (640,)
    max_size: int = 1333
    color_jitter: str = "ssd"
    flip_prob: float = 0.5
    single_category_max_area: float = 1.0
    ignore_label: int = 255
    further: Sequence[Callable[[Tensor, Tensor, torch.Generator], tuple[Tensor, Tensor]]] = ()

    def __post_init__(self) -> None:
        sizes = {"crop_size": [self.crop_size], "max_size": [self.max_size], "min_sizes": self.min_sizes}
        for name, size in ((name, size) for name, given in sizes.items() for size in given):
            if size < 1:
                raise ValueError(f"{name}: {size} is not a length in pixels, expected 1 or more")
        if not self.min_sizes:
            raise ValueError("min_sizes: expected at least one length in pixels, found none")
        if self.color_jitter not in ("ssd", "none"):
            raise ValueError(f'color_jitter: {self.color_jitter!r} is unknown, expected "ssd" or "none"')
        if not 0 <= self.flip_prob <= 1:
            raise ValueError(f"flip_prob: {self.flip_prob} is not a probability")
        if not 0 < self.single_category_max_area <= 1:
            raise ValueError(f"single_category_max_area: {self.single_category_max_area} is not a share in (0, 1]")

    def __call__(self, image: np.ndarray, label: np.ndarray, generator: torch.Generator | int) -> tuple[Tensor, Tensor]:
        """Transform one pair.

        Args:
            image: (H, W, 3) uint8, RGB.
            label: (H, W), any integer type, class indices, the ignore label, and ``BACKGROUND``.
            generator: source of every random choice, or a seed for one.

        Returns:
            Image (3, S, S) uint8 and label map (S, S) int64.
        """
        if image.shape[:2] != label.shape:
            raise ValueError(f"image {image.shape[:2]} and label map {label.shape} differ in size (height, width)")
        if not isinstance(generator, torch.Generator):
            generator = torch.Generator().manual_seed(int(generator))
        min_size = self.min_sizes[_draw_index(len(self.min_sizes), generator)]
        height, width = label.shape
        size = shortest_edge_size(height, width, min_size, self.max_size)
        pixels = _resize(_to_tensor(image), size)
        target = torch.from_numpy(label.astype(np.int64, copy=False))[None]
        # "exact" samples at pixel centres, as the image's bilinear does; plain nearest would shift by half a pixel
        target = F.resize(target, list(size), interpolation=InterpolationMode.NEAREST_EXACT)[0]
        top, left = self._draw_crop(target, generator)
        window = (..., slice(top, top + self.crop_size), slice(left, left + self.crop_size))
        pixels, target = pixels[window], target[window]
        if self.color_jitter == "ssd":
            pixels = SSDColorJitter()(pixels, generator)
        if _draw(generator) < self.flip_prob:
            pixels, target = F.horizontal_flip(pixels), F.horizontal_flip(target)
        margin = [0, 0, self.crop_size - target.shape[1], self.crop_size - target.shape[0]]
        pixels = F.pad(pixels, margin, fill=GREY)
        target = F.pad(target[None], margin, fill=self.ignore_label)[0]
        kinds = [(tensor.shape, tensor.dtype) for tensor in (pixels, target)]
        for transform in self.further:
            pixels, target = transform(pixels, target, generator)
            if (found := [(tensor.shape, tensor.dtype) for tensor in (pixels, target)]) != kinds:
                raise ValueError(f"INPUT.TRANSFORMS: {transform} returned {found}, expected {kinds}")
        return pixels.contiguous(), target.contiguous()

    def _draw_crop(self, target: Tensor, generator: torch.Generator) -> tuple[int, int]:
        """Top left corner of the crop; (0, 0) along a side that is no longer than the crop."""
        height, width = target.shape
        for _ in range(MAX_CROP_DRAWS):
            top = _draw_index(max(height - self.crop_size, 0) + 1, generator)
            left = _draw_index(max(width - self.crop_size, 0) + 1, generator)
            if self.single_category_max_area == 1:
                break
            crop = target[top : top + self.crop_size, left : left + self.crop_size]
            counts = crop[crop != self.ignore_label].unique(return_counts=True)[1]
            if len(counts) and counts.max() <= counts.sum() * self.single_category_max_area:
                break
        return top, left


class SSDColorJitter:
    """Colour jitter of SSD (Liu et al., 2016), each of its four steps with probability one half.

    Brightness adds up to ±32 of 255, contrast multiplies all channels by 0.5 to 1.5, saturation multiplies that of HSV
    by 0.5 to 1.5, hue turns by up to ±36° (18 of the 180 steps of the original). Contrast comes, by the toss of a coin,
    before or after saturation and hue. Unlike torchvision's ``RandomPhotometricDistort`` it never permutes channels.
    """

    def __call__(self, image: Tensor, generator: torch.Generator) -> Tensor:
        """(3, H, W) uint8 RGB → the same, jittered."""
        levels = np.arange(256.0)
        brightness = _draw_between(-32, 32, generator) if _toss(generator) else 0.0
        contrast = _draw_between(0.5, 1.5, generator) if _toss(generator) else 1.0
        saturation = _draw_between(0.5, 1.5, generator) if _toss(generator) else 1.0
        hue = _draw_between(-0.1, 0.1, generator) if _toss(generator) else 0.0
        contrast_first = _toss(generator)

        pixels = Image.fromarray(image.permute(1, 2, 0).contiguous().numpy())
        first = np.clip(levels + brightness, 0, 255)
        pixels = pixels.point(_table(first * contrast if contrast_first else first) * 3)
        if saturation != 1 or hue != 0:
            turned = (levels + round(hue * 256)) % 256
            hsv = pixels.convert("HSV").point(_table(turned) + _table(levels * saturation) + _table(levels))
            pixels = hsv.convert("RGB")
        if contrast != 1 and not contrast_first:
            pixels = pixels.point(_table(levels * contrast) * 3)
        return torch.from_numpy(np.array(pixels)).permute(2, 0, 1)


def _table(levels: np.ndarray) -> list[int]:
    """What each of the 256 levels of one channel becomes, as Pillow takes it."""
    return np.rint(np.clip(levels, 0, 255)).astype(int).tolist()


def _draw(generator: torch.Generator) -> float:
    return torch.rand((), generator=generator).item()


def _draw_between(low: float, high: float, generator: torch.Generator) -> float:
    return low + (high - low) * _draw(generator)


def _draw_index(count: int, generator: torch.Generator) -> int:
    return min(math.floor(_draw(generator) * count), count - 1)


def _toss(generator: torch.Generator) -> bool:
    return _draw(generator) < 0.5
