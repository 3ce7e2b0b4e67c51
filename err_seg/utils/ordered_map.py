"""Work in threads that overlaps with the network's: an ordered map, and how much of the time the network had."""

import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def ordered_map(
    function: Callable[[T], R], items: Iterable[T], *, threads: int, ahead: int
) -> Generator[R, None, None]:
    """Yield ``function(item)`` for each item, in order; it is called in threads, for some items ahead of time.

    The items are asked for in the caller's thread. While that makes the next one, the threads work on those before it.

    Args:
        function: what to call; with one thread, it is called for one item at a time, in order.
        items: may be endless, and make an item only when it is asked for.
        threads: how many calls may run at a time.
        ahead: how many items may be asked for beyond the one whose result is waited for; bounds the memory.

    Raises:
        Exception: what a call or the items raise, after the results of all items before; no further call begins.
            When the caller stops or is interrupted, the calls that run are waited for, and no further one begins.
    """
    pool = ThreadPoolExecutor(threads)

    def call(item: T) -> R:
        try:
            return function(item)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise

    def begun() -> Iterator[Future[R]]:
        try:
            for item in items:
                yield pool.submit(call, item)
        except Exception as error:  # comes after the results that are not asked for yet
            failed: Future[R] = Future()
            failed.set_exception(error)
            yield failed

    waiting: deque[Future[R]] = deque()
    try:
        for future in begun():
            waiting.append(future)
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


@dataclass
class TimeShare:
    """How much of a span of time one kind of work took, both in seconds."""

    work: float = 0.0
    whole: float = 0.0

    @contextmanager
    def timing(self, name: str) -> Iterator[None]:
        """Add the block's time to ``work`` or ``whole``."""
        began = time.perf_counter()
        try:
            yield
        finally:
            setattr(self, name, getattr(self, name) + time.perf_counter() - began)

    def add(self, other: "TimeShare") -> None:
        """Add another process's times."""
        self.work += other.work
        self.whole += other.whole

    def __str__(self) -> str:
        return f"{self.work / self.whole:.0%} of {self.whole:.1f} s" if self.whole else "none"
