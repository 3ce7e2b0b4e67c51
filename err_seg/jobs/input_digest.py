"""What identifies an input: its path, and the content of a file or of bytes that are no file."""

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import TypeAlias

import numpy as np

from err_seg.data import ImageReadError
from err_seg.jobs.result_names import printable
from err_seg.utils.files import file_signature
from err_seg.utils.fingerprint import content_digest, file_digest, is_settled


class FileContent:
    """A file, as it is when it is first looked at; ``path`` is absolute."""

    def __init__(self, path: Path):
        self.path = str(path.absolute())

    @cached_property
    def signature(self) -> list[int] | None:
        """The file's signature if no later change of the file could go unnoticed, else ``None``."""
        return self._first_signature if is_settled(self._first_signature) else None

    @cached_property
    def digest(self) -> str:
        """The digest of the file's content."""
        return file_digest(self.path)

    def read(self, decode: Callable[[], np.ndarray]) -> np.ndarray:
        """Decode the file, and check that it has not changed since it was first looked at.

        Raises:
            ImageReadError: it has; another program may be writing to it.
        """
        image = decode()
        if file_signature(self.path) != self._first_signature:
            raise ImageReadError(f"{printable(self.path)}: changed while it was read; run this again")
        return image

    @cached_property
    def _first_signature(self) -> list[int]:
        return file_signature(self.path)


class BytesContent:
    """Bytes that are no file, read once, when they are first needed.

    Args:
        path: names their origin; a result of other bytes from there is replaced.
        read: returns them.
    """

    signature = None  # only the bytes themselves identify them

    def __init__(self, path: str, read: Callable[[], bytes]):
        self.path = path
        self._read = read

    @cached_property
    def data(self) -> bytes:
        """The bytes."""
        return self._read()

    @property
    def digest(self) -> str:
        """The digest of all bytes."""
        return content_digest(self.data)


Content: TypeAlias = FileContent | BytesContent
