"""Locks between runs and between threads; a process that is forked meanwhile has none of them."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from weakref import WeakSet

from err_seg.utils.files import try_lock

_files: set[int] = set()  # descriptors of those that this process has locked
_locks = WeakSet[threading.Lock]()


def fork_safe_lock() -> threading.Lock:
    """Return a lock that is free in a forked process, which lacks the thread that may have held it."""
    lock = threading.Lock()
    _locks.add(lock)
    return lock


@contextmanager
def locked(file: Path, note: str = "") -> Iterator[int | None]:
    """Lock a file, which stays, for a ``with`` block; yields a descriptor, or ``None`` if another run holds the lock.

    The system releases it when this process has ended, and all that the descriptor was handed on to. Processes that are
    forked meanwhile, such as loader processes, do not hold it. The file says ``note``.

    Raises:
        OSError: the file cannot be written.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
    _files.add(descriptor)
    try:
        is_ours = try_lock(descriptor) is not False
        if is_ours:
            with suppress(OSError):  # of a full disk
                os.ftruncate(descriptor, 0)
                os.write(descriptor, note.encode())
        yield descriptor if is_ours else None
    finally:
        if descriptor in _files:  # else this is a forked process
            _files.remove(descriptor)
            os.close(descriptor)


def _have_none() -> None:
    for lock in (lock for lock in _locks if lock.locked()):
        lock.release()
    while _files:
        os.close(_files.pop())


if hasattr(os, "register_at_fork"):  # else there are no forks
    os.register_at_fork(after_in_child=_have_none)
