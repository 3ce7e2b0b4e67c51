"""One function over many items in a pool of processes, with a progress bar and a clean end."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from typing import TypeVar

from err_seg.data.preparation.sources import PreparationError
from err_seg.utils.processes import start_method
from err_seg.utils.progress import ProgressBar
from err_seg.utils.signals import handling_stop_signals

Item = TypeVar("Item")
Result = TypeVar("Result")

# Starting the processes takes as long as converting some hundred files; fewer than this per process are not worth it.
_WORTH_A_PROCESS = 64


def default_workers() -> int:
    """Number of processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def for_each(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    consume: Callable[[Result], None],
    *,
    workers: int,
    title: str,
) -> None:
    """Call ``consume(function(item))`` for every item, in order; ``function`` runs in up to ``workers`` processes.

    An exception (of ``function``, of ``consume``, or Ctrl-C) drops the items that are not under way, waits for the
    others and is raised. Worker processes end with this one, however it ends. The function and the items must be
    picklable, as the processes do not share this one's memory; ``consume`` is called in this process.

    Args:
        workers: at least 1; 1 computes in this process.
        title: the progress bar's.

    Raises:
        PreparationError: a worker process died (for lack of memory, as a rule).
    """
    workers = min(workers, len(items) // _WORTH_A_PROCESS)
    with ExitStack() as stack:
        results: Iterator[Result] = map(function, items)
        try:
            if workers > 1:
                context = multiprocessing.get_context(start_method())
                context.set_forkserver_preload([__name__])
                executor = ProcessPoolExecutor(workers, context, _start_worker)
                stack.callback(executor.shutdown, cancel_futures=True)
                with handling_stop_signals(signal.SIG_IGN, ["SIGINT"]):  # so in the workers from their start
                    results = executor.map(function, items, chunksize=max(1, min(16, len(items) // (workers * 32))))
            with ProgressBar(results, title, len(items), unit="file", mininterval=0.5, disable=None) as progress:
                for result in progress:
                    consume(result)
        except BrokenProcessPool as error:
            raise PreparationError(
                "a worker process ended abruptly, perhaps for lack of memory: run again with fewer --workers; "
                "files that are done are kept"
            ) from error


def _start_worker() -> None:
    """Ignore Ctrl-C, and end with the parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def end_with_parent() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()
