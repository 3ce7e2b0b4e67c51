"""The processes that divide a job: which one this is, and what they exchange.

Training and evaluation communicate through torch.distributed, and wait by :mod:`err_seg.utils.heartbeat`. The processes
of a prediction exchange nothing before they are done. Until then, the environment variables that the launcher
(torchrun, accelerate launch) sets are enough.
"""

import multiprocessing
import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

import torch.distributed as dist
from torch import Tensor

from err_seg.utils.errors import ConfigError, RunError
from err_seg.utils.heartbeat import wait_for_all
from err_seg.utils.locks import locked

T = TypeVar("T")

WRITER = ".writer.lock"
_folders: ContextVar[frozenset[Path]] = ContextVar("folders", default=frozenset())  # that this run writes to

# a process that is done waits for all others, however long they take
PATIENCE = timedelta(days=30)


def process_share() -> tuple[int, int]:
    """Return this process's rank and the number of processes."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


def is_main_process() -> bool:
    """Whether this is the process that writes files and logs."""
    return process_share()[0] == 0


def sum_over_processes(tensor: Tensor) -> Tensor:
    """Sum a tensor over all processes, in place, and return it; it must be on the device that they communicate with."""
    if dist.is_initialized():
        dist.all_reduce(tensor)
    return tensor


def of_main_process(text: str) -> str:
    """Return the main process's text in all processes; their own may differ if each has its own copy of a file."""
    texts = [text]
    if dist.is_initialized():
        dist.broadcast_object_list(texts)
    return texts[0]


def check_shared_folder(folder: Path) -> None:
    """Make the output folder, and check that all processes, on whichever machine, see the same one.

    One process writes checkpoints and all read them; an evaluation's results are collected through files.

    Raises:
        ConfigError: some do not; raised in all processes, and names the ones that do not.
    """
    rank, processes = process_share()
    if processes == 1:
        return
    # new every time, so that a copy of the folder does not hold it
    probe = folder / of_main_process(f".shared-{os.urandom(8).hex()}")
    if rank == 0:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
    wait_for_all()
    seen: list[bool] = [False] * processes
    dist.all_gather_object(seen, probe.exists())
    if rank == 0:
        probe.unlink()
    if not all(seen):
        blind = ", ".join(str(number) for number, sees in enumerate(seen) if not sees)
        raise ConfigError(
            f"OUTPUT_DIR {folder} is not one folder for all: process {blind} does not see what process 0 writes to it. "
            "Give all machines the same folder, on a disk that they share"
        )


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
                if stack.enter_context(locked(place / WRITER, note)) is None:
                    note = (place / WRITER).read_text(encoding="utf-8", errors="replace")
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


def start_method() -> str:
    """Fork from a server process that imports once for all, or, where there is none, start each from scratch."""
    return "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"


def launched_share() -> tuple[int, int]:
    """Return this process's rank and the number of processes as its launcher says, by RANK and WORLD_SIZE.

    Raises:
        ValueError: the environment contradicts itself.
    """
    rank, processes = (int(os.environ.get(name) or default) for name, default in (("RANK", 0), ("WORLD_SIZE", 1)))
    if not 0 <= rank < processes:
        raise ValueError(f"RANK={rank} is not below WORLD_SIZE={processes}; both are set by torchrun")
    return rank, processes


def are_apart() -> bool:
    """Whether this is one of several processes that no launcher connects."""
    return launched_share()[1] > 1 and "MASTER_ADDR" not in os.environ


def gather_launched(value: T) -> list[T] | None:
    """Wait until all processes of a launcher are done, and collect a value from each.

    Launchers stop all processes when one of them exits with an error. A process with an unreadable image must
    therefore not exit before the others are done.

    Returns:
        All values in process 0 and ``None`` in the others; this process's alone where no launcher connects them.
    """
    rank, processes = launched_share()
    if processes == 1 or are_apart():
        return [value]
    dist.init_process_group("gloo", timeout=PATIENCE)
    try:
        values: list[T] | None = [value] * processes if rank == 0 else None
        dist.gather_object(value, values)
    finally:
        dist.destroy_process_group()
    return values
