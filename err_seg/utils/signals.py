"""Signals that ask a process to stop, handled for the duration of a ``with`` block."""

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

# of all systems and Ctrl-C; of Slurm before a time limit, and of a terminal that is closed
STOP_SIGNALS = ("SIGTERM", "SIGINT", "SIGUSR1", "SIGHUP")


class StopRequest:
    """A handler for signals that records in ``signum`` the first one that asked this process to stop; else it is 0."""

    def __init__(self) -> None:
        self.signum = 0
        self._process = os.getpid()

    def __call__(self, signum: int, frame: object = None) -> None:
        """Record a signal."""
        # a loader process that was forked from this one must not stop: the last batches come from it
        if os.getpid() == self._process:
            self.signum = self.signum or signum


@contextmanager
def handling_stop_signals(
    handler: Callable[[int, object], None] | signal.Handlers, names: Sequence[str] = STOP_SIGNALS
) -> Iterator[None]:
    """During a ``with`` block, handle the signals of some names by ``handler(signum, frame)``.

    Besides SIGTERM and Ctrl-C, those stay as they are that the program ignores, as under nohup, or handles itself.
    Outside the main thread Python allows no handlers; signals then keep their usual effect.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {}
    for signum in (getattr(signal, name) for name in names if hasattr(signal, name)):  # Windows lacks some
        if signum in (signal.SIGTERM, signal.SIGINT) or signal.getsignal(signum) == signal.SIG_DFL:
            before[signum] = signal.signal(signum, handler)
    try:
        yield
    finally:
        for signum, replaced in before.items():
            signal.signal(signum, replaced)
