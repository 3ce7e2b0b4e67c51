"""The processes that divide a job: which one this is, and what they exchange.

Training and evaluation communicate through torch.distributed, and wait by :mod:`err_seg.engine.peers`. The processes of
a prediction exchange nothing before they are done. Until then, what the launcher (torchrun, accelerate launch) tells
each of them is enough.
"""

import os
from datetime import timedelta
from typing import TypeVar

import torch.distributed as dist
from torch import Tensor

T = TypeVar("T")

# a process that is done waits for all others, however long they take
PATIENCE = timedelta(days=30)


def process_share() -> tuple[int, int]:
    """Return this process's rank and the number of processes."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


def is_main_process() -> bool:
    """Whether this is the process that writes files and logs."""
    return not dist.is_initialized() or dist.get_rank() == 0


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
