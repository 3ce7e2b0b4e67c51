"""Checks of a sweep, so that it does not fail after hours for a reason known at its start, and its missing steps.

A step is done if the file that it writes last is there and belongs to its settings. A killed step continues where it
was: trainings are resumed, and evaluations skip the images that they have counted. A step locks its folder for as
long as its process lives, even if the sweep itself was killed, so that any number of sweeps can run side by side.
"""

import os
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from err_seg.data import SegmentationPairs, find_dataset
from err_seg.data.ground_truth import check_ground_truth
from err_seg.lab.mini.evaluation import check_test_scenes
from err_seg.lab.sweeps.definition import Sweep, SweepError
from err_seg.lab.sweeps.display import Display, last_lines
from err_seg.lab.sweeps.plan import Run
from err_seg.lab.sweeps.results import measured_rows
from err_seg.lab.sweeps.run_steps import Step, Workers
from err_seg.lab.sweeps.tables import markdown_table, save_tables, swept_values
from err_seg.lab.table import duration_text
from err_seg.utils.fingerprint import fingerprint
from err_seg.utils.locks import locked
from err_seg.utils.signals import handling_stop_signals

SECONDS_BETWEEN_LOOKS = 1.0
LINES_SHOWN = 4


def check_sweep(sweep: Sweep, runs: Sequence[Run]) -> None:
    """Check that a sweep's runs can be made, and that its table and its plot can be made from them.

    Raises:
        SweepError: a swept value is not a number, the data set of ``cost`` is unknown, a run of the miniature world is
            evaluated on something else, or a folder belongs to other settings.
    """
    if sweep.plot is not None:
        swept_values(sweep, sweep.plot)
    for run in runs:
        run.is_evaluated()
        try:
            if sweep.cost:
                find_dataset(sweep.cost, run.cfg.DATASETS.CUSTOM)
            if sweep.is_mini:
                check_test_scenes(run.cfg)
        except ValueError as error:
            raise SweepError(f"{sweep.file}: variant {run.variant.name!r}: {error}") from error


def open_data(runs: Sequence[Run]) -> None:
    """Open the data sets of the missing runs, which draws the miniature world's, and look at their label maps.

    Raises:
        DatasetError: one is not on disk, or holds nothing that can be learnt or measured.
    """
    opened = set()
    for run in runs:
        data = run.cfg.DATASETS
        names = data.TEST if run.is_trained() else [*data.TRAIN, *data.TEST]
        if run.is_evaluated() or (key := (*names, data.ROOT, str(data.CUSTOM))) in opened:
            continue
        opened.add(key)
        for name in names:
            pairs = SegmentationPairs(find_dataset(name, data.CUSTOM), data.ROOT)
            check_ground_truth(pairs, trains=name in data.TRAIN)


def run_sweep(
    sweep: Sweep, runs: Sequence[Run], wanted: Sequence[Run], folder: Path, workers: Workers | None, command: str
) -> list[str]:
    """Run what is missing of ``wanted``, and write the sweep's tables before, after each run and at the end.

    Without ``workers`` nothing is run, and what is missing is listed.

    Returns:
        One line for each step that failed.

    Raises:
        SweepError: a sweep over other runs is writing its tables to ``folder``; see also :func:`work_through`.
    """

    def write_tables() -> None:
        save_tables(sweep, measured_rows(sweep, runs), folder, command)

    lock, own = folder.with_name(f".{folder.name}.lock"), fingerprint({"runs": [str(run.results) for run in runs]})
    with locked(lock, own) as held:
        if held is None and lock.read_text(encoding="utf-8") != own:
            problem = f"another sweep is writing the table of other settings or seeds to {folder} at this moment"
            raise SweepError(f"{problem}; wait for it, or choose another --output")
        print(f"== {sweep.title}", flush=True)
        write_tables()  # so that errors in writing show before anything is run
        try:
            if workers:
                return work_through(wanted, workers, Display(), write_tables, sweep.title)
            for run in wanted:
                if not run.is_evaluated():
                    print(f"missing: {run.title} ({run.evaluation.folder})")
            return []
        finally:
            write_tables()
            print(markdown_table(sweep, measured_rows(sweep, runs)))
            print(f"Written to {folder}", flush=True)


@dataclass
class Stop:
    """A request to stop, and the processes that it is passed on to."""

    signum: int = 0
    processes: set[subprocess.Popen[bytes]] = field(default_factory=set)

    def __call__(self, signum: int, frame: object = None) -> None:
        """Record a signal and pass it on; a process that trains saves a checkpoint before it ends."""
        self.signum = signum
        for process in list(self.processes):
            process.send_signal(signum)


def work_through(
    runs: Sequence[Run], workers: Workers, display: Display, finished: Callable[[], None], title: str = ""
) -> list[str]:
    """Run the steps that are not done yet, and call ``finished`` after each finished run.

    Returns:
        One line for each step that failed; all others are done. If ``finished`` fails, its error is one of the lines.

    Raises:
        SweepError: there are fewer GPUs than the jobs need, or a folder holds results of other settings.
        KeyboardInterrupt: Ctrl-C or SIGTERM came; the running steps have saved what they had.
    """
    workers.check()
    missing = [run for run in runs if not run.is_evaluated()]
    display.tell(f"{len(runs)} runs, {len(runs) - len(missing)} of them done before")
    # runs that share a training go one after the other, in one slot
    groups: dict[Path, list[Run]] = {}
    for run in missing:
        groups.setdefault(run.training.folder, []).append(run)
    waiting = iter(groups.values())  # all slots take from it
    stop, failures, one_at_a_time = Stop(), list[str](), threading.Lock()

    def work(slot: int) -> None:
        for group in waiting:
            for run in group:
                failure = _finish_run(run, workers, slot, stop, display)
                if not failure and not stop.signum:
                    with one_at_a_time:
                        whole.update()
                        try:
                            finished()
                        except (OSError, ValueError) as error:
                            failure = str(error)
                if failure:
                    failures.append(failure)
                if failure and not run.weights.is_file():  # which the others need, too
                    break

    with (
        handling_stop_signals(stop),
        display.bar(title, 0, total=len(runs), initial=len(runs) - len(missing)) as whole,
        ThreadPoolExecutor(workers.jobs) as pool,
    ):
        list(pool.map(work, range(workers.jobs)))  # raises what a slot raised
    if stop.signum:
        raise KeyboardInterrupt
    return list(dict.fromkeys(failures))


def _finish_run(run: Run, workers: Workers, slot: int, stop: Stop, display: Display) -> str:
    """Train and evaluate a run; return what went wrong, or nothing."""
    for step in (Step(run, evaluates=False), Step(run, evaluates=True)):
        status = _do(step, workers, slot, stop, display)
        if stop.signum:
            return ""
        if status:
            output = step.task.folder / "output.txt"
            tail = "\n".join(f"    {line}" for line in last_lines(output, LINES_SHOWN))
            return f"{step.title} failed with status {status}; {output} ends with\n{tail}"
    return ""


def _do(step: Step, workers: Workers, slot: int, stop: Stop, display: Display) -> int:
    """Run a step unless it is done, or wait for another process that runs it; return its exit status."""
    waiting = False
    while not stop.signum and not step.is_done():
        with locked(step.task.folder / ".lock") as lock:
            if lock is not None:
                return 0 if step.is_done() else _run(step, workers, slot, lock, stop, display)
        if not waiting:
            display.tell(f"{step.title}: another process runs it, waiting")
        waiting = True
        time.sleep(SECONDS_BETWEEN_LOOKS)
    return 0


def _run(step: Step, workers: Workers, slot: int, lock: int, stop: Stop, display: Display) -> int:
    command, folder = step.begin(workers), step.task.folder
    display.tell(f"{step.title} …")
    start = time.monotonic()
    with (
        (folder / "output.txt").open("ab") as output,
        display.process(step.title, folder, step.iterations, slot) as look,
    ):
        process = subprocess.Popen(
            command,
            env=workers.environment(slot),
            stdout=output,
            stderr=subprocess.STDOUT,
            pass_fds=(lock,) if os.name == "posix" else (),
            start_new_session=True,  # Ctrl-C comes through Stop, once
        )
        stop.processes.add(process)
        if stop.signum:
            process.send_signal(stop.signum)
        while process.returncode is None:
            look()
            with suppress(subprocess.TimeoutExpired):
                process.wait(SECONDS_BETWEEN_LOOKS)
        stop.processes.discard(process)
    if process.returncode == 0:
        display.tell(f"{step.title}: done in {duration_text(time.monotonic() - start)}")
    return process.returncode
