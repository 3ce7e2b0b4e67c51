"""What identifies an input: the content of a file, or of bytes that are no file."""

from collections.abc import Callable
from functools import cached_property
from pathlib import Path

from err_seg.data import ImageReadError
from err_seg.jobs.result_names import printable
from err_seg.utils.files import file_signature
from err_seg.utils.fingerprint import content_digest, file_digest, is_settled


class FileContent:
    """A file, as it is at the first call; see :class:`~err_seg.jobs.manifest.Content`."""

    def __init__(self, path: Path):
        self.path = str(path.absolute())

    def signature(self) -> list[int] | None:
        """Return the file's signature if no later change of the file could go unnoticed, else ``None``."""
        return self._signature if self._is_settled else None

    def digest(self) -> str:
        """Return the digest of the file's content."""
        return self._digest

    def check(self) -> None:
        """Check that the file has not changed since.

        Raises:
            ImageReadError: it has; another program may be writing to it.
        """
        if file_signature(self.path) != self._signature:
            raise ImageReadError(f"{printable(self.path)}: changed while it was read; run this again")

    @cached_property
    def _signature(self) -> list[int]:
        return file_signature(self.path)

    @cached_property
    def _is_settled(self) -> bool:
        return is_settled(self._signature)

    @cached_property
    def _digest(self) -> str:
        return file_digest(self.path)


class Bytes:
    """Bytes that are no file, got once, when they are first needed; see :class:`~err_seg.jobs.manifest.Content`.

    Args:
        path: what stands for them; new ones from there replace those before.
        get: returns them.
    """

    def __init__(self, path: str, get: Callable[[], bytes]):
        self.path = path
        self._get = get

    def signature(self) -> list[int] | None:
        """Return ``None``: only their content identifies them."""
        return None

    def digest(self) -> str:
        """Return the digest of all bytes."""
        return content_digest(self.data)

    @cached_property
    def data(self) -> bytes:
        """The bytes."""
        return self._get()
