"""Reading images and label maps from files.

Images are what a viewer shows: upright, in RGB, eight bits. Label maps are what the file stores: class indices,
never colours, never rescaled.
"""

import errno
import io
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from err_seg.utils.errors import DamagedFileError

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
# Pillow stretches shallow grey to 0..255, which is right for an image and wrong for class indices.
_GREY_STEP = {"L;2": 85, "L;4": 17}

MOST_SCANS = 100
"""Of a progressive JPEG. Usual ones have about ten; each takes as long as the decoding of a whole image."""
_MARKER = re.compile(rb"\xff([^\x00\x01\xd0-\xd8\xff])")
_SCAN, _END = b"\xda", b"\xd9"

LONGEST_NAME = 500
"""Of a longer name errors show the beginning."""


class ImageReadError(DamagedFileError):
    """An image or label map that cannot be read; the message names the file and what is wrong with it."""


class ImageError(ValueError):
    """Something that is not an image; the message says what was found and what was expected."""


def read_image(source: str | os.PathLike[str] | bytes | Image.Image, name: str = "") -> np.ndarray:
    """Read an image as upright RGB.

    The EXIF orientation is applied. Grey, 1-bit, palette, CMYK and 16-bit grey images are converted (16 bit are
    scaled to 8). Transparent pixels are composited on white: what lies beneath them is arbitrary and no viewer shows
    it. Of an animation the first frame is read.

    Args:
        source: a file, the bytes of one, or an image that Pillow has opened (left unchanged).
        name: what errors call it, where it is no path.

    Returns:
        (H, W, 3) uint8, RGB.

    Raises:
        ImageReadError: the file is missing, empty, not an image, damaged or cut short; the image has no pixels, or
            grey values without a defined range (floating point, or integers beyond 16 bits).
    """
    if isinstance(source, Image.Image):
        name = name or getattr(source, "filename", "") or "the given image"
        with _naming(name):
            return _to_rgb(source, name)
    if isinstance(source, bytes):
        name, content = name or "the given bytes", source
    else:
        name, content = name or os.fsdecode(source), read_file(source, name)
    with _naming(name), _opened(content, name) as image:
        pixels = _decode_plain_jpeg(image, content)
        return _to_rgb(image, name) if pixels is None else pixels


def read_file(path: str | bytes | os.PathLike[str], name: str = "") -> bytes:
    """Read the content of a file.

    Args:
        path: the file.
        name: what errors call it, instead of its path.

    Raises:
        ImageReadError: it is missing, no file, or cannot be read.
    """
    with _naming(name or os.fsdecode(path)):
        return Path(os.fsdecode(path)).read_bytes()


def read_label(path: str | os.PathLike[str]) -> np.ndarray:
    """Read a label map with exactly the values that the file stores.

    A palette file gives its indices, not its colours; 16-bit PNG and TIFF keep 16 bits; an EXIF orientation is not
    applied.

    Returns:
        (H, W), uint8 (up to 8 bits a pixel), uint16 or int32.

    Raises:
        ImageReadError: as :func:`read_image`; also for a file of colours, of floating-point values, or of a lossy
            format (JPEG), none of which hold class indices.
    """
    name = os.fspath(path)
    with _naming(name), _opened(Path(path).read_bytes(), name) as image:
        return _to_indices(image, name)


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


def _decode_plain_jpeg(image: Image.Image, content: bytes) -> np.ndarray | None:
    """Decode an upright RGB JPEG with OpenCV, in two thirds of Pillow's time: both call libjpeg-turbo, to the same end.

    Returns:
        (H, W, 3) uint8, RGB; None for any other image, and where OpenCV cannot: Pillow then says what is wrong.
    """
    if image.format != "JPEG" or image.mode != "RGB" or _orientation(image) != 1:
        return None
    try:
        return cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error:
        return None


def _orientation(image: Image.Image) -> int:
    try:
        return image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # damaged EXIF data; viewers show such an image as it is stored
        return 1


def _to_rgb(image: Image.Image, name: str) -> np.ndarray:
    if 0 in image.size:
        raise ImageReadError(f"{name}: has no pixels ({image.width}x{image.height})")
    image.load()  # some formats are made upright by this
    # ImageOps.exif_transpose does the same, but it also writes the EXIF data again, and fails if some are damaged
    if (turn := _UPRIGHT.get(_orientation(image))) is not None:
        image = image.transpose(turn)
    if image.mode == "F":
        raise ImageReadError(f"{name}: holds floating-point values, which have no defined white; save it with 8 bits")
    if image.mode.startswith("I"):
        return _sixteen_bit_grey_to_rgb(np.asarray(image), image.info.get("transparency"), name)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return np.array(image.convert("RGB"))


def _sixteen_bit_grey_to_rgb(grey: np.ndarray, transparent: int | None, name: str) -> np.ndarray:
    low, high = int(grey.min()), int(grey.max())
    if low < 0 or high > 65535:
        raise ImageReadError(f"{name}: grey values from {low} to {high} do not fit 16 bits; save it with 8 or 16 bits")
    eight_bit = ((grey.astype(np.uint32) + 128) // 257).astype(np.uint8)
    eight_bit[grey == transparent] = 255
    return np.repeat(eight_bit[:, :, None], 3, axis=2)


def _to_indices(image: Image.Image, name: str) -> np.ndarray:
    if image.format in ("JPEG", "MPO"):
        raise ImageReadError(f"{name}: a label map may not be a JPEG, whose compression alters values; save it as PNG")
    if image.mode not in ("1", "L", "P", "I") and not image.mode.startswith("I;16"):
        raise ImageReadError(
            f"{name}: a label map has one channel of class indices (grey or palette, 8 or 16 bits), but this file has "
            f"the channels {'+'.join(image.getbands())} (mode {image.mode}); convert its colours to indices first"
        )
    raw_mode = _raw_mode(image)
    if raw_mode[:1] in ("1", "L") and raw_mode.endswith("I"):
        raise ImageReadError(f"{name}: is stored white-is-zero, which leaves its values ambiguous; save it as PNG")
    label = np.array(image)
    if 0 in label.shape:
        raise ImageReadError(f"{name}: has no pixels ({image.width}x{image.height})")
    if label.dtype == bool:
        return label.astype(np.uint8)
    if raw_mode in _GREY_STEP:
        return label // np.uint8(_GREY_STEP[raw_mode])
    return label.astype(label.dtype.newbyteorder("="), copy=False)


def _raw_mode(image: Image.Image) -> str:
    """Pillow's name for the pixels' layout in the file, known before they are decoded ("" where there is none)."""
    tiles = getattr(image, "tile", None)
    if not tiles:
        return ""
    arguments = tiles[0][3]
    return str(arguments[0] if isinstance(arguments, tuple) else arguments)
