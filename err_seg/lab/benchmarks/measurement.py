"""Times cases in turns, and measures each case's memory and operations in a process of its own."""

import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import groupby
from multiprocessing import get_context
from typing import ParamSpec, TypeVar

import numpy as np
import psutil
import torch
import torch._dynamo
from torch.utils.flop_counter import FlopCounterMode

from err_seg.config import Config
from err_seg.lab.benchmarks.cases import Case, make_work
from err_seg.lab.benchmarks.machine import Machine, Operations, macs_by_part, synchronize, timed
from err_seg.models.build import build_model

P = ParamSpec("P")
T = TypeVar("T")
SAMPLING_SECONDS = 0.005
MOST_COMPILED = 10_000
"""Versions of a function. Torch's own limit is a few; what exceeds it runs uncompiled, without a word."""


@dataclass(frozen=True)
class Measurement:
    """What was measured of a case; what follows ``other_load`` only where it was asked for.

    Attributes:
        case: which.
        kept: mean number of classes kept.
        seconds: of each round.
        ratios: to the first case of the group, round by round.
        other_load: share of the processors' time that went to other processes (or virtual machines) meanwhile.
        macs: multiply-adds of the whole batch, by part of the network.
        memory: peak above the loaded model, in bytes.
        arithmetic_share: time that the arithmetic alone takes in a large matrix product, as a share of the median time.
        roofline_share: the same for the operation-by-operation roofline; above 1 if operands stay in caches.
    """

    case: Case
    kept: float
    seconds: list[float]
    ratios: list[float]
    other_load: float = 0.0
    macs: dict[str, int] = field(default_factory=dict)
    memory: float | None = None
    arithmetic_share: float | None = None
    roofline_share: float | None = None


def processor_seconds() -> tuple[float, float]:
    """Return the processors' time so far, in seconds: in all, and what of it was not idle and not for this process."""
    times, own = psutil.cpu_times()._asdict(), psutil.Process().cpu_times()
    whole = sum(times.values()) - times.get("guest", 0) - times.get("guest_nice", 0)  # these are in "user" as well
    return whole, whole - times["idle"] - times.get("iowait", 0) - sum(own[:4])  # with children that have ended


@contextmanager
def peak_memory(device: torch.device) -> Iterator[Callable[[], float]]:
    """Watch the memory in use, of the device or (CPU) the process; yields a function that returns the peak in bytes."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        yield lambda: torch.cuda.max_memory_allocated(device) - before
        return
    process, stop = psutil.Process(), threading.Event()
    before = peak = process.memory_info().rss

    def sample() -> None:
        nonlocal peak
        while not stop.wait(SAMPLING_SECONDS):
            peak = max(peak, process.memory_info().rss)

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    try:
        yield lambda: max(peak, process.memory_info().rss) - before
    finally:
        stop.set()
        thread.join()


def in_new_process(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call a function in a process of its own, with as many threads as this one, and return what it returns."""
    with ProcessPoolExecutor(1, get_context("spawn"), torch.set_num_threads, (torch.get_num_threads(),)) as process:
        return process.submit(function, *args, **kwargs).result()


def measure(
    cases: Sequence[Case], configs: Mapping[str, Config], *, rounds: int, machine: Machine, demands: bool = True
) -> Iterator[list[Measurement]]:
    """Measure all cases, and yield the rows of each group.

    What is compared is timed in turns, so that a slower minute of the machine slows all.

    Args:
        cases: those of a group follow each other, and the first of a group is what the others are compared with.
        configs: by the cases' ``config``; weights do not matter unless K follows the need.
        rounds: how often each case is timed, after once to warm up.
        machine: its limits.
        demands: also measure memory and operations, which takes a process and two runs for each case.
    """
    for (config, *_), group in groupby(cases, key=lambda case: case.group):
        cfg, group_cases = configs[config], list(group)
        rows = time_in_turns(group_cases, cfg, rounds)
        yield [with_demands(row, cfg, machine) for row in rows] if demands else rows


def time_in_turns(cases: Sequence[Case], cfg: Config, rounds: int) -> list[Measurement]:
    """Time cases that share a network, one after the other in each round."""
    model = build_model(cfg)
    works = [make_work(case, cfg, model) for case in cases]
    with torch._dynamo.config.patch(recompile_limit=MOST_COMPILED, accumulated_recompile_limit=MOST_COMPILED):
        kept = [work() for work in works]
    before = processor_seconds()
    seconds = [[timed(work, model.device) for work in works] for _ in range(rounds)]
    whole, others = (now - then for now, then in zip(processor_seconds(), before, strict=True))
    load = max(others / whole, 0.0) if whole else 0.0
    return [
        Measurement(case, kept[i], [turn[i] for turn in seconds], [turn[i] / turn[0] for turn in seconds], load)
        for i, case in enumerate(cases)
    ]


def with_demands(row: Measurement, cfg: Config, machine: Machine) -> Measurement:
    """Add to a row what its case asks of the machine."""
    memory, operations, macs = in_new_process(measure_demands, row.case, cfg)
    flops, median = 2 * sum(macs.values()), percentiles(row.seconds)[0]
    return replace(
        row,
        macs=macs,
        memory=memory,
        arithmetic_share=flops / machine.flops[row.case.precision] / median,
        roofline_share=machine.seconds_needed(operations, row.case.precision) / median,
    )


def measure_demands(case: Case, cfg: Config) -> tuple[float, list[tuple[int, int]], dict[str, int]]:
    """Run a case alone in this process: for its memory, and once more, not compiled, to count its operations.

    Returns:
        The peak of memory above the loaded model in bytes, (FLOP, bytes) of each operation, and the multiply-adds by
        part of the network, of training all together.
    """
    logging.getLogger("err_seg.models.build").setLevel(logging.ERROR)  # as in the main process
    model = build_model(cfg)
    work = make_work(case, cfg, model)
    with peak_memory(model.device) as peak:
        work()
        work()
        synchronize(model.device)
        memory = peak()
    counted = make_work(replace(case, compiled=""), cfg, model)
    with FlopCounterMode(display=False) as counter, Operations() as operations:
        counted()
    if case.kind == "training" or case.predictor:  # which part of the network it is, is not known
        count = sum(flops for flops, _ in operations.seen) // 2
        macs = {"all": count} if count else {}
    else:
        macs = macs_by_part(counter, model)
    return memory, operations.seen, macs


def percentiles(values: Sequence[float]) -> tuple[float, float, float]:
    """Return the median and the 10th and 90th percentile, interpolated."""
    median, low, high = np.percentile(values, (50, 10, 90)).tolist()
    return median, low, high
