"""Images to files, complete or not at all."""

from pathlib import Path
from typing import Any

from PIL import Image

from err_seg.files import atomic_write


def save_image(image: Image.Image, path: str | Path, **options: Any) -> None:
    """Write an image as PNG; ``options`` are those of Pillow.

    Raises:
        OSError: it cannot be written.
    """
    with atomic_write(path) as partial:
        image.save(partial, format="PNG", **options)
