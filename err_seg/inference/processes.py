"""Several processes that divide a job, started by torchrun or accelerate launch."""

import os
from datetime import timedelta

from torch import distributed

from err_seg.inference.report import Report

# a process that is done waits for all others, however long they take
PATIENCE = timedelta(days=30)


def process_rank() -> tuple[int, int]:
    """Return this process's number and the number of all, by RANK and WORLD_SIZE; (0, 1) alone.

    Raises:
        ValueError: the environment contradicts itself.
    """
    rank, world_size = (int(os.environ.get(name) or default) for name, default in (("RANK", 0), ("WORLD_SIZE", 1)))
    if not 0 <= rank < world_size:
        raise ValueError(f"RANK={rank} is not below WORLD_SIZE={world_size}; both are set by torchrun")
    return rank, world_size


def gather_reports(report: Report) -> Report | None:
    """Wait until all processes are done, and add up their reports.

    Launchers stop all processes when one of them exits with an error. A process with an unreadable picture must
    therefore not exit before the others are done.

    Args:
        report: this process's.

    Returns:
        The report of the whole job in process 0, ``None`` in the others; this process's own if no launcher connects
        them.
    """
    rank, world_size = process_rank()
    if world_size == 1 or "MASTER_ADDR" not in os.environ:
        return report
    distributed.init_process_group("gloo", timeout=PATIENCE)
    try:
        reports: list[Report | None] | None = [None] * world_size if rank == 0 else None
        distributed.gather_object(report, reports)
    finally:
        distributed.destroy_process_group()
    if reports is None:
        return None
    whole = Report()
    for part in reports:
        assert part is not None
        whole.merge(part)
    return whole
