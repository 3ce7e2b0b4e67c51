"""The errors that end a run, and their causes outside of it, each reported in one sentence."""

import multiprocessing
import os
import re
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from traceback import walk_tb
from types import TracebackType

from err_seg.utils.disk import disk_error, is_disk_full, size_text
from err_seg.utils.signals import STOP_SIGNALS

SHARED_MEMORY = "/dev/shm"
SIGNAL_SECONDS = 3.0  # the time within which torch reports by a signal that a loader process was killed
MORE_SHARED_MEMORY = "of a container: docker run --shm-size=8g"
MEMORY = (
    f", as happens where memory or shared memory does not suffice; give it more ({MORE_SHARED_MEMORY}) or lower "
    "DATALOADER.NUM_WORKERS"
)


class ConfigError(ValueError):
    """A configuration that cannot be used; the message names the key, what was expected and what was found."""


class DamagedFileError(ValueError):
    """An image or label map that cannot be used; the message names the file and what is wrong with it."""


class ImageReadError(DamagedFileError):
    """An image or label map that cannot be read; the message names the file and what is wrong with it."""


class WorkerError(ChildProcessError):
    """A loader process that failed; the message says why, and what to do about it."""


class RunError(RuntimeError):
    """A run that cannot start or continue; the message says where it stopped, with which files, and what is intact.

    Attributes:
        status: the command's exit status.
        alone: whether it stops only one of several processes, which must then report it.
    """

    status = 1
    alone = False


class NonFiniteError(RunError, ValueError):
    """What a network computed holds NaN or infinity."""


class TrainingError(RunError):
    """Training that cannot start or continue."""


class EvaluationError(RunError):
    """Evaluation that cannot continue."""


class TrainingInterrupted(TrainingError):
    """Training that stopped because it was asked to, after a checkpoint was written.

    Attributes:
        status: 128 + the signal's number: 143 for SIGTERM, 130 for Ctrl-C.
    """

    def __init__(self, message: str, signum: int):
        super().__init__(f"{signal.Signals(signum).name}: {message}")
        self.status = 128 + signum


@contextmanager
def translate_errors(kind: type[RunError], kept: Callable[[], str], advice: str) -> Iterator[None]:
    """Turn errors of the disk, of memory, of loader processes and of damaged files into a ``RunError`` of one sentence.

    Args:
        kind: the class of that error.
        kept: returns what is kept, such as "the last good checkpoint is ..."; called when an error occurs.
        advice: how to continue once the cause is removed, such as "rerun with --resume".

    Raises:
        RunError: one of class ``kind``, with ``alone`` set, since it occurs in one of the run's processes only.
    """
    try:
        with worker_failures(), _quiet_threads():
            yield
    except RunError:
        raise
    except Exception as error:
        problem, refusal = str(error), disk_error(error)
        if isinstance(error, WorkerError):
            cure = "Then"
        elif isinstance(error, DamagedFileError):
            skip = ", or set DATALOADER.SKIP_DAMAGED True to train without such pairs" * (kind is TrainingError)
            cure = f"Fix or remove the file{skip}, then"
        elif refusal is not None:
            file = f" {refusal.filename}" if refusal.filename else ""
            problem = f"cannot write{file}: {refusal.strerror}"
            cure = "Free some space there, then" if is_disk_full(refusal) else "Check that disk, then"
        elif isinstance(error, MemoryError) and problem:
            cure = "With more memory,"
        elif isinstance(error, OSError):
            cure = "Resolve this, then"
        else:
            raise
        ending = kind(f"{problem}; {kept()}. {cure} {advice}")
        ending.alone = True
        raise ending from error


@contextmanager
def _quiet_threads() -> Iterator[None]:
    """Print no stack trace for a thread that cannot write; TensorBoard's raises the error again at its next write."""
    before = threading.excepthook

    def hook(arguments: threading.ExceptHookArgs) -> None:
        if disk_error(arguments.exc_value) is None:
            before(arguments)

    threading.excepthook = hook
    try:
        yield
    finally:
        threading.excepthook = before


@contextmanager
def worker_failures() -> Iterator[None]:
    """Turn torch's reports of failing loader processes (stack traces, some of them by a signal) into one sentence.

    The report that a process was killed may come between any two lines of the block, not only where a batch is read.

    Raises:
        WorkerError: a process was killed, or its memory or shared memory did not suffice.
        DamagedFileError: a file is damaged; the error is of the class that the process raised, without its stack trace.
    """
    try:
        yield
    except DamagedFileError as error:
        name, text = type(error).__name__, str(error)
        if "in DataLoader worker process" not in text:
            raise
        raise type(error)(text.rpartition(f"{name}: ")[2].strip()) from None
    except (RuntimeError, MemoryError) as error:
        problem = _worker_problem(str(error))
        if problem is None:
            raise
        raise WorkerError(problem) from error
    except (ConnectionError, EOFError) as error:  # killed while it handed over a batch
        if all("torch/utils/data" not in frame.f_code.co_filename for frame, _ in walk_tb(error.__traceback__)):
            raise
        problem = None
        try:
            time.sleep(SIGNAL_SECONDS)  # else the signal about the killed process would end the program later
        except RuntimeError as report:
            problem = _worker_problem(str(report))
        raise WorkerError(problem or f"a loader process ended unexpectedly{MEMORY}") from error


def start_worker(worker: int) -> None:
    """Prepare a loader process; give it as ``worker_init_fn``.

    Signals to the whole job, as of Slurm, must not end it, since the process that trains needs it to stop in good
    order; of SIGTERM, only that process's own counts. When another process is killed, the one that trains may end in
    the middle of taking over a batch. The thread that hands batches over would print a stack trace of that; what is
    reported is the killed process.
    """

    def report(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if not issubclass(kind, (ConnectionError, EOFError)):
            sys.__excepthook__(kind, error, trace)

    sys.excepthook = report
    for name in STOP_SIGNALS:
        if hasattr(signal, name) and name != "SIGTERM":
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    if (parent := multiprocessing.parent_process()) and hasattr(signal, "sigwaitinfo"):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_end_at_sigterm_of, args=(parent.pid,), daemon=True).start()


def _end_at_sigterm_of(parent: int | None) -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:
        pass
    os._exit(0)


def _worker_problem(report: str) -> str | None:
    """Say in one sentence what torch reports of a loader process; ``None`` if it reports something else."""
    if "shared memory" in report:
        try:
            found = f"{SHARED_MEMORY} holds {size_text(shutil.disk_usage(SHARED_MEMORY).total)}"
        except OSError:  # there are systems without it
            found = "the system's"
        return (
            f"a loader process ran out of shared memory ({found}); give it more "
            f"({MORE_SHARED_MEMORY}) or lower DATALOADER.NUM_WORKERS"
        )
    if "Caught MemoryError in DataLoader worker" in report:
        return "a loader process ran out of memory; lower DATALOADER.NUM_WORKERS"
    pattern = r"DataLoader worker \(pid(?:\(s\))? ([\d, ]+)\) (?:is killed by signal: (\w+[\w ]*)|exited)"
    if (killed := re.search(pattern, report)) is None:
        return None
    how = f"was killed by a signal ({killed[2].strip()})" if killed[2] else "ended unexpectedly"
    return f"a loader process (pid {killed[1]}) {how}{MEMORY}"
