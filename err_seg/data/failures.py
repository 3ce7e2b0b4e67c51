"""Errors from outside that end a run, each told in one sentence: the disk, a loader process, a damaged pair."""

import logging
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from err_seg.data import ImageReadError, PairError, WorkerError
from err_seg.data.workers import worker_failures
from err_seg.utils.disk import disk_error, is_disk_full, writing
from err_seg.utils.errors import RunError, TrainingError


@contextmanager
def translate_errors(kind: type[RunError], kept: Callable[[], str], go_on: str) -> Iterator[None]:
    """Turn such an error into a ``RunError`` that says what happened, what is kept, and how to continue.

    Args:
        kind: the class of that error.
        kept: returns what is kept, such as "the last good checkpoint is ..."; called when an error occurs.
        go_on: how to continue once the cause is removed, such as "--resume".

    Raises:
        RunError: one of class ``kind``, with ``alone`` set, since the run's other processes do not know of it.
    """
    try:
        with worker_failures(), _quiet_threads():
            yield
    except RunError:
        raise
    except Exception as error:
        sentence = _sentence(error, kind)
        if sentence is None:
            raise
        what, cure = sentence
        ending = kind(f"{what}; {kept()}. {cure}{go_on}")
        ending.alone = True
        raise ending from error


def _sentence(error: Exception, kind: type[RunError]) -> tuple[str, str] | None:
    """Return a sentence that says what happened, and the beginning of one that says what to do."""
    if isinstance(error, WorkerError):
        return str(error), "Then "
    if isinstance(error, (ImageReadError, PairError)):
        skip = ", or set DATALOADER.SKIP_DAMAGED True to train without such pairs," * (kind is TrainingError)
        return str(error), f"Mend that file{skip} and "
    if (refusal := disk_error(error)) is not None:
        file = f" {refusal.filename}" if refusal.filename else ""
        cure = "Make space there and " if is_disk_full(refusal) else "Look at that disk and "
        return f"cannot write{file}: {refusal.strerror}", cure
    if isinstance(error, OSError):
        return str(error), "See to it and "
    return None


@contextmanager
def _quiet_threads() -> Iterator[None]:
    """Print no stack trace for a thread that cannot write; TensorBoard's raises the error again at its next write."""
    before = threading.excepthook

    def hook(arguments: Any) -> None:
        if disk_error(arguments.exc_value) is None:
            before(arguments)

    threading.excepthook = hook
    try:
        yield
    finally:
        threading.excepthook = before


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
