"""What TIFF files say besides colours: bands, types without a standard white, and which pixels hold no data."""

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import numpy as np
from PIL import Image

from err_seg.utils.errors import ImageReadError

BITS, PHOTOMETRIC, EXTRA, SAMPLE_FORMAT, NO_DATA = 258, 262, 338, 339, 42113  # numbers of tags
WHITE_IS_ZERO, SIGNED, ALPHA = 0, 2, 2  # and values of theirs
BEGINNINGS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # of files, the last two of those beyond 4 GB


def check_range(image: Any, name: str) -> None:
    """Check that the values of a loaded TIFF, if it is one, are unsigned and of 16 bits at most.

    Raises:
        ImageReadError: they have no standard black and white.
    """
    if image.mode == "F" or (image.format == "TIFF" and (image.mode == "I" or is_signed(image))):
        raise _no_range(np.asarray(image).view("i1") if image.mode == "L" else np.asarray(image), name)


def is_signed(image: Any) -> bool:
    """Whether values are signed; Pillow takes those of 8 bits for unsigned."""
    return image.tag_v2.get(SAMPLE_FORMAT, (1,))[0] == SIGNED


def is_white_zero(image: Any) -> bool:
    """Whether 0 is white."""
    return image.tag_v2.get(PHOTOMETRIC) == WHITE_IS_ZERO


def without_data(image: Any, values: np.ndarray) -> np.ndarray | None:
    """Return (H, W) bool, where values of an image hold no data by GDAL's tag in a TIFF; ``None`` without one."""
    with suppress(AttributeError, KeyError, ValueError):
        empty = values == float(image.tag_v2[NO_DATA].rstrip("\0"))
        return empty if empty.ndim == 2 else empty[:, :, :3].all(axis=2)
    return None


def without_false_alpha(image: Any) -> tuple[Image.Image, np.ndarray | None]:
    """Leave out a TIFF's fourth band if it is no alpha; return the image and :func:`without_data`, with alpha 0."""
    if image.format != "TIFF":
        return image, None
    empty = without_data(image, np.asarray(image))
    if image.mode != "RGBA":
        return image, empty
    alpha = np.asarray(image.getchannel("A"))
    if image.tag_v2.get(EXTRA) == (ALPHA,) and not _is_transparency(alpha):
        return image.convert("RGB"), empty
    return image, alpha == 0 if empty is None else empty | (alpha == 0)


def _is_transparency(alpha: np.ndarray) -> bool:
    """Whether most of what is visible is opaque: GDAL calls any fourth band alpha, such as infrared, unless asked."""
    return bool(2 * np.count_nonzero(alpha == 255) >= np.count_nonzero(alpha))


def _no_range(values: np.ndarray, name: str) -> ImageReadError:
    kind, low, high = "floating-point" if values.dtype.kind == "f" else "signed or 32-bit", values.min(), values.max()
    return ImageReadError(
        f"{name}: holds {kind} values, here from {low:g} to {high:g}, which have no standard black and white; give "
        f"them, --value-range {low:g},{high:g} (in Python read_image(file, value_range=({low:g}, {high:g}))), or save "
        "it with 8 bits"
    )


def read_bands(
    content: bytes, name: str, bands: Sequence[int] | None, value_range: tuple[float, float] | str | None
) -> np.ndarray:
    """Read any bands of a TIFF by rasterio; see :func:`err_seg.data.images.read_masked_image`."""
    try:
        import rasterio
    except ImportError as error:
        what = "is a TIFF of bands or values that Pillow does not read; rasterio may"
        raise ImageReadError(f'{name}: {what}: pip install "err_seg[geo]"') from error
    with rasterio.MemoryFile(content) as file, file.open(driver="GTiff") as data:
        colors = {color.name: number for number, color in reversed([*enumerate(data.colorinterp, start=1)])}
        usual = [1, 2, 3] if data.count in (3, 4) else [1] if data.count < 3 else []
        rgb = [colors[color] for color in ("red", "green", "blue") if color in colors]
        numbers = list(bands or (rgb if len(rgb) == 3 else usual))
        if len(numbers) not in (1, 3) or not {*numbers} <= {*range(1, data.count + 1)}:
            raise ImageReadError(
                f"{name}: has {data.count} bands; say which are red, green and blue, or which one is grey, as in "
                "--bands 3,2,1 (in Python read_image(file, bands=(3, 2, 1)))"
            )
        values, masks = data.read(numbers), data.read_masks(numbers)
        is_alpha = rasterio.enums.MaskFlags.alpha in data.mask_flag_enums[numbers[0] - 1]
        bits = int(data.tags(numbers[0], ns="IMAGE_STRUCTURE").get("NBITS", 8 * values.dtype.itemsize))
    seen = np.isfinite(values).all(axis=0)
    if not is_alpha or _is_transparency(masks[0]):
        seen &= masks.any(axis=0)
    known = values[:, seen] if seen.any() else np.zeros((1, 1), values.dtype)
    if value_range is None and (values.dtype.kind != "u" or bits > 16):
        raise _no_range(known, name)
    low, high = (0.0, 2.0**bits - 1) if value_range is None else (float(known.min()), float(known.max()))
    if isinstance(value_range, tuple):
        low, high = value_range
    wide = values.astype(np.float32 if bits <= 16 else np.float64)
    wide[:, ~seen] = low
    scaled = ((wide - low) * (255 / ((high - low) or 1))).round().clip(0, 255).astype(np.uint8)
    return masked(np.ascontiguousarray(np.broadcast_to(scaled, (3, *seen.shape)).transpose(1, 2, 0)), ~seen)


def masked(pixels: np.ndarray, empty: np.ndarray) -> np.ndarray:
    """Make pixels (H, W, 3) without data, (H, W), white, as transparent ones are, and mask them, if there are any."""
    if not empty.any():
        return pixels
    pixels[empty] = 255
    return np.ma.array(pixels, mask=np.broadcast_to(empty[:, :, None], pixels.shape))
