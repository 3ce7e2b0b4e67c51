"""Everything that may stand for an image, and how each becomes a tensor."""

import os
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import IO, Any, TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from err_seg.data.arrays import ArrayFormat
from err_seg.data.download import fetch, is_url, shown_url
from err_seg.data.images import ImageError, ImageReadError, read_file, read_image
from err_seg.utils.validation import ArgumentError

T = TypeVar("T")
ImageSource = str | os.PathLike[str] | bytes | bytearray | memoryview | IO[bytes] | Image.Image | np.ndarray | Tensor
_AS_THEY_ARE = ArrayFormat()


def is_single(images: Any) -> bool:
    """Whether this is one thing that may be an image, and not a list, tuple, generator, ... of such things.

    Raises:
        ArgumentError: several things without an order.
    """
    if isinstance(images, set | frozenset | Mapping):
        raise ArgumentError(f"images must be in a fixed order, but a {type(images).__name__} has none; pass a list")
    is_one = isinstance(images, str | bytes | bytearray) or hasattr(images, "shape") or hasattr(images, "read")
    return is_one or not isinstance(images, Iterable)


def are_read(images: Any) -> bool:
    """Whether all images are arrays or tensors, so that nothing is left to be read from a file or decoded."""
    given = images if isinstance(images, list | tuple) else [images]
    return all(isinstance(image, np.ndarray | Tensor) for image in given)


def open_images(images: Any, arrays: ArrayFormat) -> Iterator[Callable[[], Tensor]]:
    """Take one image or several; errors say the number of each of several, from 0. See :func:`open_image`."""
    if is_single(images):
        return (open_image(image, arrays=arrays) for image in [images])
    return (_open_numbered(image, f"image {number}", arrays) for number, image in enumerate(images))


def image_to_tensor(image: Any) -> Tensor:
    """Turn an image into a (3, H, W) uint8 RGB tensor, see :func:`open_image`."""
    return open_image(image)()


def open_image(image: Any, name: str = "the image", arrays: ArrayFormat = _AS_THEY_ARE) -> Callable[[], Tensor]:
    """Take an image, and return what reads it to a (3, H, W) uint8 RGB tensor.

    Whatever its owner might change or close is read here: arrays, PIL images and the content of file objects. What is
    returned reads paths and addresses and decodes; it may be called in another thread, and be pickled. It gives the
    same image every time: an address is fetched once, and a file that has changed since the first time is refused.

    Args:
        image: a path, an https address, the bytes of a file, a file object opened in binary mode (read from where it
            stands), a PIL image, or an array or tensor.
        name: what errors call it, unless it has a name of its own.
        arrays: what the values of arrays and tensors mean.

    Raises:
        ImageError: nothing of all this; or see :meth:`ArrayFormat.to_tensor`.
        ImageReadError: it cannot be read as an image; from what is returned also.
    """
    match image:
        case str() if is_url(image):
            return _Address(image)
        case str() | os.PathLike() if os.fsdecode(image).strip():
            return _File(os.fsdecode(image))
        case bytes() | bytearray() | memoryview():
            return partial(_decode, bytes(image), "the given bytes")
        case Image.Image():
            pixels = _decode(image)
        case np.ndarray() | Tensor():
            pixels = arrays.to_tensor(image, name)
        case _ if hasattr(image, "read"):
            title = getattr(image, "name", None)
            # a temporary file's is a number or None
            title = os.fsdecode(title) if isinstance(title, str | os.PathLike) else "the given file"
            return partial(_decode, _content(image, name, title), title)
        case _:
            found = "a blank text" if isinstance(image, str) else type(image).__name__
            advice = "; several images: list(images); an array: numpy.asarray(image)" if hasattr(image, "shape") else ""
            raise ImageError(
                f"{name} must be a path, an https address, encoded bytes, a binary file, a PIL image, or an array or "
                f"tensor, not {found}{advice}"
            )
    return _Pixels(pixels)


def _open_numbered(image: Any, name: str, arrays: ArrayFormat) -> Callable[[], Tensor]:
    read = _named(name, partial(open_image, image, name, arrays))
    return read if isinstance(read, _Pixels) else partial(_named, name, read)


def _named(name: str, read: Callable[[], T]) -> T:
    try:
        return read()
    except ImageReadError as error:
        raise ImageReadError(f"{name}: {error}") from error


def _content(file: Any, name: str, title: str) -> bytes:
    try:
        content = file.read()
    except MemoryError:
        raise
    except Exception as error:  # closed, not opened for reading, or whatever a file within an archive raises
        raise ImageReadError(f"{title}: cannot be read ({error})") from error
    if not isinstance(content, bytes):
        raise ImageError(
            f'{name} must be a file opened in binary mode, open(..., "rb"); it gave {type(content).__name__}'
        )
    if not content:
        raise ImageReadError(f"{title}: was already read to the end; call file.seek(0) first")
    return content


@dataclass(frozen=True, eq=False)
class _Pixels:
    """Gives the image that it holds, (3, H, W); a result takes it along to another device."""

    pixels: Tensor

    def __call__(self) -> Tensor:
        return self.pixels

    def to(self, device: torch.device | str) -> "_Pixels":
        return _Pixels(self.pixels.to(device))


class _File:
    """Reads the image in a file, as long as the file's content is that of the first time."""

    def __init__(self, name: str):
        self.name = name
        self.path = os.path.abspath(os.path.expanduser(name))  # the working folder may be another one at the next time
        self.checksum: int | None = None

    def __call__(self) -> Tensor:
        content = read_file(self.path, self.name)
        checksum = zlib.crc32(content)
        if self.checksum not in (None, checksum):
            raise ImageReadError(
                f"{self.name}: the file has changed since it was labelled; label it again, or give the image as it "
                "was: plot(image)"
            )
        self.checksum = checksum
        return _decode(content, self.name)


@dataclass(eq=False)
class _Address:
    """Reads the image at an address, which is fetched once: it may show another image later, or expire."""

    url: str
    content: bytes | None = None

    def __call__(self) -> Tensor:
        if self.content is None:
            self.content = fetch(self.url)
        return _decode(self.content, shown_url(self.url))


def _decode(content: bytes | Image.Image, title: str = "") -> Tensor:
    return torch.from_numpy(read_image(content, title)).permute(2, 0, 1)
