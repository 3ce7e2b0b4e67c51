"""Reading images and label maps from files.

Images are what a viewer shows: upright, in sRGB, eight bits. Label maps are what the file stores: class indices,
never colours, never rescaled.
"""

import errno
import io
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from err_seg.data import tiff
from err_seg.data.srgb import transform_to_srgb, with_srgb_colors
from err_seg.utils.errors import ImageReadError

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""How an image is turned upright, by its EXIF orientation."""
_LOSSY = ("JPEG", "MPO", "WEBP", "AVIF", "HEIF")
# Pillow stretches shallow grey to 0..255, which is right for an image and wrong for class indices.
_GREY_STEP = {"L;2": 85, "L;4": 17}

MOST_SCANS = 100
"""Of a progressive JPEG. Usual ones have about ten; each takes as long as the decoding of a whole image."""
_MARKER = re.compile(rb"\xff([^\x00\x01\xd0-\xd8\xff])")
_SCAN, _END = b"\xda", b"\xd9"

LONGEST_NAME = 500
"""Of a longer name errors show the beginning."""


class ImageError(ValueError):
    """Something that is not an image; the message says what was found and what was expected."""


def read_image(source: str | os.PathLike[str] | bytes | Image.Image, name: str = "", **options: Any) -> np.ndarray:
    """Read an image as upright RGB, (H, W, 3) uint8; see :func:`read_masked_image`, for its arguments as well."""
    return np.asarray(read_masked_image(source, name, **options))


def read_masked_image(
    source: str | os.PathLike[str] | bytes | Image.Image,
    name: str = "",
    *,
    bands: Sequence[int] | None = None,
    value_range: tuple[float, float] | str | None = None,
    as_stored: bool = False,
) -> np.ndarray:
    """Read an image as upright RGB; pixels of a TIFF that hold no data are masked.

    The EXIF orientation is applied. Grey, 1-bit, palette, CMYK and 16-bit grey images are converted (16 bit are
    scaled to 8), and colours of other profiles than sRGB. Transparent pixels are composited on white: what lies
    beneath them is arbitrary and no viewer shows it. So are pixels of a TIFF that hold no data by GDAL's tag, a mask or
    a fourth band that is alpha. Of an animation the first frame is read.

    Args:
        source: a file, the bytes of one, or an image that Pillow has opened (left unchanged).
        name: what errors call it, where it is no path.
        bands: of a TIFF, the numbers of red, green and blue, or of grey, from 1; needs rasterio, as the next does.
        value_range: of a TIFF, the values that are black and white, as are those beyond; or "file", its extremes.
        as_stored: leave colours as they are, whatever the profile; published numbers are of such values.

    Returns:
        (H, W, 3) uint8, RGB; a masked array (:mod:`numpy.ma`) if there are pixels without data.

    Raises:
        ImageReadError: the file is missing, empty, not an image, damaged or cut short; the image has no pixels, or
            values without a defined range (floating point, signed, or integers beyond 16 bits).
    """
    if isinstance(source, Image.Image):
        name = name or getattr(source, "filename", "") or "the given image"
        with _naming(name):
            return _to_rgb(source, name, as_stored)
    if isinstance(source, bytes):
        name, content = name or "the given bytes", source
    else:
        name, content = name or os.fsdecode(source), read_file(source, name)
    with _naming(name):
        try:
            if bands or value_range:
                return tiff.read_bands(content, name, bands, value_range)
            with _opened(content, name) as image:
                pixels = _decode_plain_jpeg(image, content, as_stored)
                return _to_rgb(image, name, as_stored) if pixels is None else pixels
        except UnidentifiedImageError:
            if not content.startswith(tiff.BEGINNINGS):
                raise
            return tiff.read_bands(content, name, None, None)


def read_file(path: str | bytes | os.PathLike[str], name: str = "") -> bytes:
    """Read the content of a file, which errors call by ``name`` instead of its path, if one is given.

    Raises:
        ImageReadError: it is missing, no file, or cannot be read.
    """
    with _naming(name or os.fsdecode(path)):
        return Path(os.fsdecode(path)).read_bytes()


def read_label(path: str | os.PathLike[str], no_data: int | None = None, *, is_color: bool = False) -> np.ndarray:
    """Read a label map with exactly the values that the file stores.

    A palette file gives its indices, not its colours, unless these are asked for; 16-bit PNG and TIFF keep 16 bits; an
    EXIF orientation is not applied.

    Args:
        path: the file.
        no_data: what pixels become that hold no data by GDAL's tag in a TIFF; ``None`` leaves them.
        is_color: read colours; a file that has none, or transparent pixels, is then an error.

    Returns:
        (H, W), uint8 (up to 8 bits a pixel), uint16 or int32; int32 with ``no_data``. Colours are red · 2^16 +
        green · 2^8 + blue.

    Raises:
        ImageReadError: as :func:`read_image`; also for a file of colours, of several bands, of floating-point values,
            or of lossy compression (JPEG), none of which hold class indices.
    """
    name = os.fspath(path)
    with _naming(name), _opened(Path(path).read_bytes(), name) as image:
        label = _to_indices(image, name, is_color)
        return label if no_data is None else np.where(tiff.without_data(image, label), np.int32(no_data), label)


@contextmanager
def _naming(name: str) -> Iterator[None]:
    """Turn whatever a decoder raises into one kind of error that names the file."""
    try:
        yield
    except (ImageReadError, MemoryError):  # that memory does not suffice is no fault of the file
        raise
    except Exception as error:  # some thirty decoders, no common base class
        shown = name if len(name) <= LONGEST_NAME else f"{name[:LONGEST_NAME]}…"
        raise ImageReadError(f"{shown}: {_complaint(name, error)}") from error


def _opened(content: bytes, name: str) -> Image.Image:
    if not content:
        raise ImageReadError(f"{name}: is empty (0 bytes); fetch or write it again")
    image = Image.open(io.BytesIO(content))
    if image.format in ("JPEG", "MPO") and (scans := _count_scans(content)) > MOST_SCANS:
        raise ImageReadError(f"{name}: is a JPEG of {scans} scans; up to {MOST_SCANS} are read: save the image again")
    return image


def _count_scans(jpeg: bytes) -> int:
    """Count the scans of a JPEG's first image, from marker to marker as decoders do; 0 if there are few."""
    scans = position = 0
    if jpeg.count(b"\xff" + _SCAN) > MOST_SCANS:  # which is fast
        while (marker := _MARKER.search(jpeg, position)) and marker[1] != _END:
            scans += marker[1] == _SCAN
            position = marker.end() + int.from_bytes(jpeg[marker.end() : marker.end() + 2], "big")
    return scans


def _complaint(name: str, error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
        return "is too long for a path"
    if os.path.isdir(name):
        return "is a folder, expected an image"
    if isinstance(error, UnidentifiedImageError):
        return "is not an image in any format that Pillow reads"
    if isinstance(error, PermissionError):
        return "may not be read (permission denied)"
    if isinstance(error, Image.DecompressionBombError):
        return (
            f"has more pixels than Pillow reads ({error}); if you trust the file, set "
            "PIL.Image.MAX_IMAGE_PIXELS = None in Python, or split the image"
        )
    return f"cannot be decoded, it may be damaged or cut short ({type(error).__name__}: {error})"


def _decode_plain_jpeg(image: Image.Image, content: bytes, as_stored: bool) -> np.ndarray | None:
    """Decode an upright sRGB JPEG with OpenCV, in two thirds of Pillow's time: both call libjpeg-turbo, to one end.

    ``None`` for any other image, and where OpenCV cannot: Pillow then says what is wrong.
    """
    if image.format != "JPEG" or image.mode != "RGB" or exif_orientation(image) != 1:
        return None
    if not as_stored and transform_to_srgb(image.info.get("icc_profile"), "RGB"):
        return None
    try:
        return cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error:
        return None


def exif_orientation(image: Image.Image) -> int:
    """Return 1 for an image that is stored upright, 5 to 8 for one stored with height and width swapped."""
    try:
        return image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # damaged EXIF data; viewers show such an image as it is stored
        return 1


def _to_rgb(image: Image.Image, name: str, as_stored: bool) -> np.ndarray:
    if 0 in image.size:
        raise ImageReadError(f"{name}: has no pixels ({image.width}x{image.height})")
    image.load()  # some formats are made upright by this
    image, empty = tiff.with_true_alpha(image, name)
    # ImageOps.exif_transpose does the same, but it also writes the EXIF data again, and fails if some are damaged
    if (turn := _UPRIGHT.get(exif_orientation(image))) is not None:
        image = image.transpose(turn)
    if image.mode.startswith("I"):
        image = _eight_bit_grey(image, name)
    if not as_stored:
        image = with_srgb_colors(image)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return tiff.masked(np.array(image.convert("RGB")), empty)


def _eight_bit_grey(image: Any, name: str) -> Image.Image:
    """Scale grey values of up to 16 bits to 8; the transparent one becomes alpha."""
    grey, transparent = np.asarray(image), image.info.get("transparency")
    low, high, white = int(grey.min()), int(grey.max()), 65535
    if low < 0 or high > white:
        raise ImageReadError(f"{name}: grey values from {low} to {high} do not fit 16 bits; save it with 8 or 16 bits")
    if image.format == "TIFF":
        white = 2 ** image.tag_v2.get(tiff.BITS, (16,))[0] - 1
        grey = white - grey if tiff.is_white_zero(image) else grey  # which Pillow does for fewer bits only
    scaled = Image.fromarray(((grey.astype(np.uint32) * 255 + white // 2) // white).astype(np.uint8))
    if transparent is not None:
        scaled.putalpha(Image.fromarray((grey != transparent).astype(np.uint8) * 255))
    scaled.info = {key: value for key, value in image.info.items() if key != "transparency"}
    return scaled


def _to_indices(image: Image.Image, name: str, is_color: bool) -> np.ndarray:
    is_tiff, raw_mode = image.format == "TIFF", _raw_mode(image)
    if image.format in _LOSSY or (is_tiff and "jpeg" in image.info.get("compression", "")):
        raise ImageReadError(f"{name}: a label map may not be a JPEG or WebP, which alter values; save it as PNG")
    if is_color:
        if image.mode not in ("RGB", "RGBA", "P") or (rgba := np.asarray(image.convert("RGBA")))[..., 3].min() < 255:
            raise ImageReadError(
                f"{name}: expected opaque colours, since the data set's entry has a palette, found mode {image.mode}; "
                "declare grey values by label_map, and save colours without transparency"
            )
        return (rgba.view(">u4")[..., 0] >> 8).astype(np.int32)
    if (image.mode not in ("1", "L", "P", "I") and not image.mode.startswith("I;16")) or raw_mode == "LX":
        raise ImageReadError(
            f"{name}: a label map has one channel of class indices (grey or palette, 8 or 16 bits), but this file has "
            f"the channels {'+'.join(image.getbands())}{'+another' * (raw_mode == 'LX')} (mode {image.mode}); declare "
            "the colours by palette in the data set's entry, or convert its colours to indices first"
        )
    if (raw_mode[:1] in ("1", "L") and raw_mode.endswith("I")) or (is_tiff and tiff.is_white_zero(image)):
        raise ImageReadError(f"{name}: is stored white-is-zero, which leaves its values ambiguous; save it as PNG")
    label = np.array(image)
    if 0 in label.shape:
        raise ImageReadError(f"{name}: has no pixels ({image.width}x{image.height})")
    if raw_mode in _GREY_STEP:
        label = label // np.uint8(_GREY_STEP[raw_mode])
    if is_tiff and label.dtype == np.uint8 and tiff.is_signed(image):
        return label.view(np.int8).astype(np.int32)
    if raw_mode.startswith("I;32N") and label.min() < 0:  # unsigned in the file
        raise ImageReadError(f"{name}: holds values beyond {np.iinfo(np.int32).max}; class indices are smaller")
    return label.astype(np.uint8 if label.dtype == bool else label.dtype.newbyteorder("="), copy=False)


def _raw_mode(image: Image.Image) -> str:
    """Pillow's name for the pixels' layout in the file, known before they are decoded ("" where there is none)."""
    tiles = getattr(image, "tile", None)
    arguments = tiles[0][3] if tiles else ""
    return str(arguments[0] if isinstance(arguments, tuple) else arguments)
