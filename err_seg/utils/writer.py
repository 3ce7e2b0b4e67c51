"""One run at a time writes to a folder; its lock ends with its process, however that ends and on whichever machine."""

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path

from err_seg.utils.errors import RunError
from err_seg.utils.files import try_lock
from err_seg.utils.processes import is_main_process, of_main_process

LOCK = ".writer.lock"
_locks: set[int] = set()  # descriptors of those that this process holds
_folders: ContextVar[frozenset[Path]] = ContextVar("folders", default=frozenset())  # that this run writes to


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
    _locks.add(descriptor)
    try:
        is_ours = try_lock(descriptor) is not False
        if is_ours:
            with suppress(OSError):  # of a full disk
                os.ftruncate(descriptor, 0)
                os.write(descriptor, note.encode())
        yield descriptor if is_ours else None
    finally:
        if descriptor in _locks:  # else this is a forked process
            _locks.remove(descriptor)
            os.close(descriptor)


@contextmanager
def one_writer(folder: Path, kind: type[RunError] = RunError) -> Iterator[None]:
    """Let no other run write to ``OUTPUT_DIR`` during a ``with`` block, which may hold another for the same folder.

    All processes of a run must call this; the main one holds the lock.

    Raises:
        RunError: of class ``kind``, in all processes: another run writes there, or nothing can be written there.
    """
    place, problem = folder.resolve(), ""
    if place in _folders.get():
        yield
        return
    with ExitStack() as stack:
        if is_main_process():
            try:
                note = f"process {os.getpid()} on {socket.gethostname()}"
                if stack.enter_context(locked(place / LOCK, note)) is None:
                    note = (place / LOCK).read_text(encoding="utf-8", errors="replace")
                    problem = f"another run ({note}) is writing to OUTPUT_DIR {folder}; wait for it, or choose another"
            except OSError as error:
                problem = f"OUTPUT_DIR {folder} cannot be written to: {error}; choose another"
        if problem := of_main_process(problem):
            raise kind(problem)
        _folders.set(_folders.get() | {place})
        try:
            yield
        finally:
            _folders.set(_folders.get() - {place})


def _leave_locks() -> None:
    """Leave the locks to the process that this one was forked from."""
    while _locks:
        os.close(_locks.pop())


if hasattr(os, "register_at_fork"):  # else there are no forks
    os.register_at_fork(after_in_child=_leave_locks)
