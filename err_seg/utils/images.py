"""Images to files, complete or not at all."""

from pathlib import Path
from typing import Any

from PIL import Image

from err_seg.utils.files import atomic_write

COMPRESSION = 4
"""Of PNG files: half of the time that zlib's usual 6 takes for a photograph, for files some 5 % larger."""
JPEG_SUFFIXES = (".jpg", ".jpeg")
JPEG = {"quality": 95, "subsampling": 0}  # colours as sharp as light, since borders are of colours
BACKGROUND = -(2**15)  # a label for training, negative for every class; no data set has it, and it fits 16 bits


def save_image(image: Image.Image, path: str | Path, kind: str | None = None, **options: Any) -> None:
    """Write an image as "JPEG" or "PNG", by default as its name ends; ``options`` are those of Pillow.

    Raises:
        OSError: it cannot be written.
    """
    kind = kind or ("JPEG" if Path(path).suffix.lower() in JPEG_SUFFIXES else "PNG")
    usual = JPEG if kind == "JPEG" else {"compress_level": COMPRESSION}
    with atomic_write(path) as partial:
        image.save(partial, format=kind, **{**usual, **options})
