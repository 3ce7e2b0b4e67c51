"""SIGTERM and Ctrl-C, handled for the duration of a ``with`` block."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class StopRequest:
    """A handler for signals that records whether this process was asked to stop.

    Attributes:
        signum: the first signal that came; 0 until one comes.
    """

    def __init__(self) -> None:
        self.signum = 0
        self._process = os.getpid()

    def __call__(self, signum: int, frame: object = None) -> None:
        """Record a signal."""
        # a loader process that was forked from this one must not stop: the last batches come from it
        if os.getpid() == self._process:
            self.signum = self.signum or signum


@contextmanager
def handling_stop_signals(handler: Callable[[int, object], None]) -> Iterator[None]:
    """During a ``with`` block, handle SIGTERM and Ctrl-C by ``handler(signum, frame)``.

    Outside the main thread Python allows no handlers; signals then keep their usual effect.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {signum: signal.signal(signum, handler) for signum in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for signum, replaced in before.items():
            signal.signal(signum, replaced)
