"""One sentence for loader processes that fail; torch reports them by stack traces, and some by a signal."""

import re
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from traceback import walk_tb
from types import TracebackType

from err_seg.data.images import ImageReadError
from err_seg.data.spec import PairError
from err_seg.utils.disk import size_text

SHARED_MEMORY = "/dev/shm"
SECONDS_TO_DIE = 3.0
MORE_SHARED_MEMORY = "of a container: docker run --shm-size=8g"
MEMORY = (
    f", as happens where memory or shared memory does not suffice; give it more ({MORE_SHARED_MEMORY}) or lower "
    "DATALOADER.NUM_WORKERS"
)


class WorkerError(ChildProcessError):
    """A loader process that failed; the message says why, and what to do about it."""


@contextmanager
def worker_failures() -> Iterator[None]:
    """Turn torch's reports of failing loader processes into one sentence.

    The report that a process was killed may come between any two lines of the block, not only where a batch is read.

    Raises:
        WorkerError: a process was killed, or its memory or shared memory did not suffice.
        ImageReadError, PairError: a file is damaged; without the process's stack trace.
    """
    try:
        yield
    except (ImageReadError, PairError) as error:
        name, text = type(error).__name__, str(error)
        if "in DataLoader worker process" not in text:
            raise
        raise type(error)(text.rpartition(f"{name}: ")[2].strip()) from None
    except (RuntimeError, MemoryError) as error:
        sentence = _sentence(str(error))
        if sentence is None:
            raise
        raise WorkerError(sentence) from error
    except (ConnectionError, EOFError) as error:  # killed while it handed over a batch
        if all("torch/utils/data" not in frame.f_code.co_filename for frame, _ in walk_tb(error.__traceback__)):
            raise
        raise WorkerError(_news_on_their_way() or f"a loader process ended unexpectedly{MEMORY}") from error


def start_worker(worker: int) -> None:
    """Prepare a loader process; give it as ``worker_init_fn``.

    When another process is killed, the one that trains may end in the middle of taking over a batch. The thread that
    hands batches over would print a stack trace of that; what is reported is the killed process.
    """

    def report(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if not issubclass(kind, (ConnectionError, EOFError)):
            sys.__excepthook__(kind, error, trace)

    sys.excepthook = report


def _news_on_their_way() -> str | None:
    """Wait for the signal about a killed process, which would otherwise end the program some time later."""
    try:
        time.sleep(SECONDS_TO_DIE)
    except RuntimeError as error:
        return _sentence(str(error))
    return None


def _sentence(told: str) -> str | None:
    if "shared memory" in told:
        return (
            f"a loader process ran out of shared memory ({_shared_memory()}); give it more "
            f"({MORE_SHARED_MEMORY}) or lower DATALOADER.NUM_WORKERS"
        )
    if "Caught MemoryError in DataLoader worker" in told:
        return "a loader process ran out of memory; lower DATALOADER.NUM_WORKERS"
    found = re.search(
        r"DataLoader worker \(pid(?:\(s\))? ([\d, ]+)\) (?:is killed by signal: (\w+[\w ]*)|exited)", told
    )
    if found is None:
        return None
    how = f"was killed by a signal ({found[2].strip()})" if found[2] else "ended unexpectedly"
    return f"a loader process (pid {found[1]}) {how}{MEMORY}"


def _shared_memory() -> str:
    try:
        usage = shutil.disk_usage(SHARED_MEMORY)
    except OSError:  # there are systems without it
        return "the system's"
    return f"{SHARED_MEMORY} holds {size_text(usage.total)}"
