"""Images and label maps as files: what is damaged is found and named, what is written is complete or absent."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image

from err_seg.data.images import exif_orientation
from err_seg.utils.errors import DamagedFileError
from err_seg.utils.files import atomic_write


@contextmanager
def naming(place: Path | str) -> Iterator[None]:
    """Turn any complaint of the code inside into a DamagedFileError that opens with the file's name."""
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:  # decoders of five formats, no common base class
        complaint = f"has no {error}" if isinstance(error, KeyError) else str(error) or type(error).__name__
        raise DamagedFileError(complaint if complaint.startswith(f"{place}") else f"{place}: {complaint}") from error


def image_size(path: Path, *, upright: bool = True) -> tuple[int, int]:
    """Height and width of an image, after reading all of it: an image cut short raises OSError.

    Args:
        path: an image file.
        upright: apply the EXIF orientation, as readers do; else as stored.
    """
    with Image.open(path) as image:
        width, height = image.size
        if upright and exif_orientation(image) in range(5, 9):
            width, height = height, width
        image.draft("L", (1, 1))  # reads every byte of a JPEG, but computes an eighth of its pixels a side
        image.load()
    return height, width


def check_size(label: np.ndarray, size: tuple[int, int]) -> None:
    """Raise ValueError unless the label map (H, W) has its image's (height, width)."""
    if label.shape != size:
        raise ValueError(
            f"the label map is {label.shape[1]}x{label.shape[0]} pixels (width x height), its image "
            f"{size[1]}x{size[0]}; they are not of the same release, or one is damaged"
        )


def shrink_image(path: Path, shorter_side: int) -> Image.Image | None:
    """An image as stored, in RGB, shrunk (linear); None where the file can serve as it is."""
    with Image.open(path) as image:
        # A label map is drawn on the pixels as stored, so an orientation that readers would apply must go.
        if min(image.size) <= shorter_side and exif_orientation(image) == 1:
            return None
        return _shrink(image.convert("RGB"), shorter_side, Image.Resampling.BILINEAR)


def shrink_label(label: np.ndarray, shorter_side: int) -> np.ndarray:
    """A label map (H, W) shrunk (nearest) as its image is, with its dtype."""
    return np.asarray(_shrink(Image.fromarray(label), shorter_side, Image.Resampling.NEAREST))


def _shrink(image: Image.Image, shorter_side: int, resampling: Image.Resampling) -> Image.Image:
    shortest = min(image.size)
    shrunk = min(shortest, shorter_side)
    width, height = (int(length * shrunk / shortest + 0.5) for length in image.size)
    return image.resize((width, height), resampling)


def write_label(label: np.ndarray, path: Path) -> None:
    """Write a label map without loss: uint8 as grey PNG, uint16 as 16-bit TIFF."""
    buffer = io.BytesIO()  # libtiff writing by itself would not say why it failed
    form = {"format": "PNG"} if label.dtype == np.uint8 else {"format": "TIFF", "compression": "tiff_adobe_deflate"}
    Image.fromarray(label).save(buffer, **form)
    with atomic_write(path) as partial:
        partial.write_bytes(buffer.getvalue())
