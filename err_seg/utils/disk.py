"""Disk errors that name the file, a log that raises them, and sizes in readable form."""

import errno
import logging
import os
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_REFUSALS = (*_FULL, errno.EIO, errno.EROFS)
_NEXT_TO_NOTHING = 1 << 16  # bytes


@contextmanager
def writing(path: str | os.PathLike[str]) -> Iterator[None]:
    """Turn disk errors in the ``with`` block into an ``OSError`` that names the file.

    Errors from opening a file name it, but errors from writing do not, and some libraries raise their own errors.

    Raises:
        OSError: the disk is full or broken; ``filename`` is ``path``.
    """
    try:
        yield
    except Exception as error:
        refusal = disk_error(error) or _silent_refusal(error, Path(path).parent)
        if refusal is None or (refusal.filename and not os.fspath(refusal.filename).endswith(".partial")):
            raise
        raise OSError(refusal.errno, os.strerror(refusal.errno or 0), os.fspath(path)) from error


def disk_error(error: BaseException | None) -> OSError | None:
    """Return the disk error that an error is or was caused by; ``None`` if it has nothing to do with the disk."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in _REFUSALS:
            return error
        code = re.search(r"\(os error (\d+)\)", str(error))  # how libraries in Rust report it
        if code and int(code[1]) in _REFUSALS:
            return OSError(int(code[1]), os.strerror(int(code[1])))
        error = error.__cause__ or error.__context__
    return None


def is_disk_full(error: OSError) -> bool:
    """Whether a file could not be written because the disk is full."""
    return error.errno in _FULL


class LogFile(logging.FileHandler):
    """A log file that ends the run if it cannot be written, instead of printing a stack trace for every line."""

    def handleError(self, record: logging.LogRecord) -> None:
        """Raise the disk's error.

        Raises:
            OSError: names the file.
        """
        error = sys.exc_info()[1]
        if error is None or disk_error(error) is None:
            super().handleError(record)
            return
        with suppress(OSError):
            self.close()  # drops what it still holds; the next line opens the file again
        with writing(self.baseFilename):
            raise error


def size_text(size: int) -> str:
    """Format a number of bytes, to three digits: "812 bytes", "48.3 MB"."""
    for unit, name in ((10**12, "TB"), (10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if size >= unit:
            value = size / unit
            return f"{value:.{2 if value < 10 else 1 if value < 100 else 0}f} {name}"
    return f"{size} bytes"


def _silent_refusal(error: Exception, folder: Path) -> OSError | None:
    """Return the disk error behind a library's error that says only that not everything was written."""
    if not isinstance(error, OSError) or error.errno is not None:
        return None
    full = shutil.disk_usage(folder).free < _NEXT_TO_NOTHING
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) if full else None
