"""Images to files, complete or not at all."""

from pathlib import Path
from typing import Any

from PIL import Image

from err_seg.files import atomic_write

COMPRESSION = 4
"""Of PNG files: half of the time that zlib's usual 6 takes for a photograph, for files some 5 % larger."""


def save_image(image: Image.Image, path: str | Path, **options: Any) -> None:
    """Write an image as PNG; ``options`` are those of Pillow.

    Raises:
        OSError: it cannot be written.
    """
    with atomic_write(path) as partial:
        image.save(partial, format="PNG", **{"compress_level": COMPRESSION, **options})
