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


def is_signed(image: Any) -> bool:
    """Whether a TIFF's values are signed; Pillow takes those of 8 bits for unsigned."""
    return image.tag_v2.get(SAMPLE_FORMAT, (1,))[0] == SIGNED


def is_white_zero(image: Any) -> bool:
    """Whether 0 is white in a TIFF."""
    return image.tag_v2.get(PHOTOMETRIC) == WHITE_IS_ZERO


def without_data(image: Any, values: np.ndarray) -> np.ndarray:
    """Return (H, W) bool, where values (H, W) or (H, W, C) of an image hold no data by GDAL's tag in a TIFF."""
    empty = np.zeros(values.shape[:2], dtype=bool)
    with suppress(AttributeError, KeyError, ValueError):
        no_data = float(image.tag_v2[NO_DATA].rstrip("\0"))
        empty |= (values == no_data).reshape(*empty.shape, -1)[:, :, :3].all(axis=2)
    return empty


def with_true_alpha(image: Any, name: str) -> tuple[Image.Image, np.ndarray]:
    """Check a loaded image of any format, and leave out a TIFF's fourth band if it is no alpha.

    Returns:
        The image, and (H, W) bool: :func:`without_data`, and in a TIFF also where alpha is 0.

    Raises:
        ImageReadError: values are floating-point or, in a TIFF, signed or of more than 16 bits.
    """
    if image.format != "TIFF" and image.mode != "F":
        return image, np.zeros(image.size[::-1], dtype=bool)
    values = np.asarray(image)
    if image.mode in ("F", "I") or is_signed(image):
        raise _no_range(values.view("i1") if image.mode == "L" else values, name)
    empty = without_data(image, values)
    if image.mode == "RGBA":
        alpha = values[:, :, 3]
        if image.tag_v2.get(EXTRA) == (ALPHA,) and not _is_transparency(alpha):
            return image.convert("RGB"), empty
        empty |= alpha == 0
    return image, empty


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
        colors = [color.name for color in data.colorinterp]
        if bands is None and {"red", "green", "blue"} <= {*colors}:
            bands = [colors.index(color) + 1 for color in ("red", "green", "blue")]
        numbers = list(bands or {1: (1,), 2: (1,), 3: (1, 2, 3), 4: (1, 2, 3)}.get(data.count, ()))
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
    low, high = 0.0, 2.0**bits - 1
    if value_range:
        low, high = map(float, (known.min(), known.max()) if value_range == "file" else value_range)
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
