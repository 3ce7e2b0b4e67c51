"""Doing what is missing: each training and each evaluation is a process of ``tools/train_net.py``.

A step is done if the file is there that it writes last. A step that was killed goes on where it was: trainings are
resumed, evaluations skip the pictures that they have counted. A step holds a lock on its folder for as long as its
process lives, even where the sweep itself was killed, so that any number of sweeps can run side by side.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue

import torch

from err_seg.files import atomic_write
from err_seg.sweeps.definition import SweepError
from err_seg.sweeps.plan import Run

TRAIN_NET = Path(__file__).resolve().parents[2] / "tools" / "train_net.py"
SECONDS_BETWEEN_LOOKS = 1.0
LINES_SHOWN = 4


@dataclass(frozen=True)
class Workers:
    """How steps are run.

    Attributes:
        jobs: how many at a time.
        num_gpus: processes of each, as ``tools/train_net.py --num-gpus``.
        engine: as ``tools/train_net.py --engine``.
    """

    jobs: int = 1
    num_gpus: int = 1
    engine: str = "auto"

    def environment(self, slot: int) -> dict[str, str]:
        """Return the environment of the step in one of the ``jobs`` slots: its share of the GPUs and of the cores."""
        environment = dict(os.environ)
        if self.jobs > 1:
            cores = os.cpu_count() or 1
            environment.setdefault("OMP_NUM_THREADS", str(max(1, cores // (self.jobs * self.num_gpus))))
            if gpus := visible_gpus():
                environment["CUDA_VISIBLE_DEVICES"] = ",".join(gpus[slot * self.num_gpus : (slot + 1) * self.num_gpus])
        return environment

    def check(self) -> None:
        """Check that there are GPUs for all jobs, or none at all.

        Raises:
            SweepError: there are some, but too few.
        """
        gpus, wanted = visible_gpus(), self.jobs * self.num_gpus
        if self.jobs > 1 and gpus and len(gpus) < wanted:
            raise SweepError(
                f"--jobs {self.jobs} of --num-gpus {self.num_gpus} each need {wanted} GPUs, there are {len(gpus)}"
            )


def visible_gpus() -> list[str]:
    """List the GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return [str(index) for index in range(torch.cuda.device_count())]
    return [name for name in visible.split(",") if name.strip()]


@dataclass(frozen=True)
class Step:
    """One process: what it is, its folder, the file that it writes last, and its command line."""

    title: str
    folder: Path
    product: Path
    command: tuple[str, ...]


@dataclass
class Stop:
    """A request to stop, and the processes to tell of it."""

    signum: int = 0
    processes: set[subprocess.Popen[bytes]] = field(default_factory=set)

    def __call__(self, signum: int, frame: object = None) -> None:
        """Take note of a signal, and pass it on; a process that trains saves a checkpoint first."""
        self.signum = signum
        for process in list(self.processes):
            process.send_signal(signum)


def work_through(
    runs: Sequence[Run], workers: Workers, tell: Callable[[str], None], finished: Callable[[], None]
) -> list[str]:
    """Do the steps of the runs that are not done yet.

    Args:
        runs: what is wanted.
        workers: how steps are run.
        tell: is handed a line of progress.
        finished: is called after each run that was finished.

    Returns:
        A line about each step that failed; the others are done.

    Raises:
        SweepError: there are fewer GPUs than the jobs need.
        KeyboardInterrupt: Ctrl-C or SIGTERM came; what was under way has saved what it had.
    """
    workers.check()
    missing = [run for run in runs if not run.results.is_file()]
    tell(f"{len(runs)} runs, {len(runs) - len(missing)} of them done before")
    # runs that share a training go one after the other, in one slot
    groups: dict[Path, list[Run]] = {}
    for run in missing:
        groups.setdefault(run.training, []).append(run)
    stop, failures, one_at_a_time = Stop(), [], threading.Lock()
    slots: SimpleQueue[int] = SimpleQueue()
    for slot in range(workers.jobs):
        slots.put(slot)

    def work(group: list[Run]) -> list[str]:
        slot, failed = slots.get(), []
        try:
            for run in group:
                if failure := _finish_run(run, workers, slot, stop, tell):
                    failed.append(failure)
                    if not run.weights.is_file():  # which the others need, too
                        break
                elif not stop.signum:
                    with one_at_a_time:
                        finished()
        finally:
            slots.put(slot)
        return failed

    with _listening(stop), ThreadPoolExecutor(workers.jobs) as pool:
        for future in as_completed([pool.submit(work, group) for group in groups.values()]):
            failures += future.result()
    if stop.signum:
        raise KeyboardInterrupt
    return list(dict.fromkeys(failures))


def _finish_run(run: Run, workers: Workers, slot: int, stop: Stop, tell: Callable[[str], None]) -> str:
    """Train and evaluate a run; return what went wrong, or nothing."""
    for step in steps_of(run, workers):
        if stop.signum:
            return ""
        status = _do(step, workers.environment(slot), stop, tell)
        if status and not stop.signum:
            return f"{step.title} failed with status {status}; {step.folder / 'output.txt'} ends with\n{_tail(step)}"
    return ""


def steps_of(run: Run, workers: Workers) -> list[Step]:
    """List the steps that a run still needs, and write the configuration that each is started with."""
    own = ("--num-gpus", str(workers.num_gpus), "--engine", workers.engine)
    steps = []
    for what, folder, product, more in (
        ("training", run.training, run.weights, ("--resume", "DATASETS.TEST", "[]")),
        ("evaluation", run.evaluation, run.results, ("--eval-only", "MODEL.WEIGHTS", str(run.weights))),
    ):
        if product.is_file():
            continue
        cfg = run.cfg.clone()
        cfg.OUTPUT_DIR = str(folder)
        file = folder / "settings.yaml"
        with atomic_write(file) as partial:
            partial.write_text(cfg.dump(), encoding="utf-8")
        command = (sys.executable, str(TRAIN_NET), "--config-file", str(file), *own, *more)
        steps.append(Step(f"{what} of {run.title}", folder, product, command))
    return steps


def _do(step: Step, environment: dict[str, str], stop: Stop, tell: Callable[[str], None]) -> int:
    """Run a step unless it is done, waiting for whoever is at it already; return its exit status."""
    waiting = False
    while not step.product.is_file() and not stop.signum:
        with _claim(step.folder) as lock:
            if lock is None:
                if not waiting:
                    tell(f"{step.title}: another process is at it, waiting")
                waiting = True
                time.sleep(SECONDS_BETWEEN_LOOKS)
                continue
            if step.product.is_file():
                break
            return _run(step, environment, lock, stop, tell)
    return 0


def _run(step: Step, environment: dict[str, str], lock: int, stop: Stop, tell: Callable[[str], None]) -> int:
    tell(f"{step.title} …")
    start = time.monotonic()
    with (step.folder / "output.txt").open("ab") as output:
        process = subprocess.Popen(
            step.command,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            pass_fds=(lock,) if os.name == "posix" else (),
            start_new_session=True,  # Ctrl-C comes through Stop, once
        )
        stop.processes.add(process)
        if stop.signum:
            process.send_signal(stop.signum)
        status = process.wait()
        stop.processes.discard(process)
    if status == 0:
        minutes, seconds = divmod(round(time.monotonic() - start), 60)
        tell(f"{step.title}: done in {minutes} min {seconds:02d} s")
    return status


@contextmanager
def _claim(folder: Path) -> Iterator[int | None]:
    """Lock a folder; yields a descriptor that keeps the lock wherever it is open, or ``None`` where it is locked."""
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT)
    try:
        if os.name == "posix":
            import fcntl

            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield None
                return
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def _listening(stop: Stop) -> Iterator[None]:
    """Have SIGTERM and Ctrl-C handed to ``stop`` for the time of a ``with`` block."""
    handlers = {signum: signal.signal(signum, stop) for signum in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for signum, handler in handlers.items():
            signal.signal(signum, handler)


def _tail(step: Step) -> str:
    lines = (step.folder / "output.txt").read_text(encoding="utf-8", errors="replace").replace("\r", "\n").split("\n")
    return "\n".join(f"    {line}" for line in [line for line in lines if line.strip()][-LINES_SHOWN:])
