"""Stopping between two iterations, when the system or the user asks for it."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

STOPPING = (signal.SIGTERM, signal.SIGINT)


class StopRequest:
    """Whether this process was asked to stop.

    Attributes:
        signum: the first signal that came; 0 until one comes.
    """

    def __init__(self) -> None:
        self.signum = 0
        self._process = os.getpid()

    def receive(self, signum: int, frame: FrameType | None) -> None:
        """Record the signal (a handler for :mod:`signal`)."""
        # a loader process that was forked from this one must not stop: the last batches come from it
        if os.getpid() == self._process:
            self.signum = self.signum or signum


@contextmanager
def stop_request() -> Iterator[StopRequest]:
    """During a ``with`` block, turn SIGTERM and Ctrl-C into a :class:`StopRequest`.

    Outside the main thread Python allows no handlers; signals then keep their usual effect.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    before = {signum: signal.signal(signum, request.receive) for signum in STOPPING}
    try:
        yield request
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
