"""Checks of whole commands: interrupted, repeated, with a process killed, with little shared memory."""

import itertools
import os
import signal
import subprocess
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from PIL import Image

from err_seg.data import register, spec_from_dict
from err_seg.engine import evaluate
from err_seg.engine.checkpoints import Checkpoints
from err_seg.mini.clip import ERR_SEG_WEIGHTS
from err_seg.mini.vocabulary import words
from err_seg.models.build import build_model
from err_seg.models.checkpoint import open_checkpoint
from tests.gpu.trial import table

pytestmark = [pytest.mark.gpu, pytest.mark.slow]

MINUTES_FOR_A_COMMAND = 8
MIB = 2**20
SHARED_MEMORY = 64 * MIB  # Docker's default
SECONDS_TO_END = 120


def start(trial, cfg, *arguments):
    """Start a training command; its output goes to a file beside its output folder."""
    with open(f"{cfg.OUTPUT_DIR}.log", "a", encoding="utf-8") as log:
        return subprocess.Popen(
            trial.command(cfg, *arguments), env=trial.environment(), stdout=log, stderr=subprocess.STDOUT
        )


def run(trial, cfg, *arguments):
    """Run a training command to its end; return the seconds it took.

    Raises:
        RuntimeError: its exit status is not 0; with the last line of its output.
    """
    began = time.perf_counter()
    status = start(trial, cfg, *arguments).wait(60 * MINUTES_FOR_A_COMMAND)
    if status:
        raise RuntimeError(f"{cfg.OUTPUT_DIR}: exit status {status}: {last_lines(cfg, 1)}")
    return time.perf_counter() - began


def last_lines(cfg, count):
    """Return the last lines of a command's output."""
    return "\n".join(Path(f"{cfg.OUTPUT_DIR}.log").read_text(encoding="utf-8").splitlines()[-count:])


def wait_for_first_iteration(cfg, process):
    """Wait until a training has done an iteration (``LOG.PERIOD`` must be 1).

    Raises:
        RuntimeError: it ended before, or takes too long.
    """
    file, deadline = Path(cfg.OUTPUT_DIR) / "metrics.json", time.monotonic() + 60 * MINUTES_FOR_A_COMMAND
    while not (file.exists() and file.stat().st_size):
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            raise RuntimeError(f"{cfg.OUTPUT_DIR}: no first iteration: {last_lines(cfg, 1)}")
        time.sleep(0.005)


def test_interrupt(trial, lines):
    """SIGTERM within ten steps, and --resume; two straight runs and the resumed one, bit by bit."""
    steps = 60 if not trial.rehearsal else 4
    precision = "fp16" if not trial.rehearsal else "fp32"
    rows, failed = [], []
    for fixed in (False, True) if not trial.rehearsal else (True,):
        overrides = [
            *("SOLVER.DETERMINISTIC", fixed, "SOLVER.PRECISION", precision, "SOLVER.MAX_ITER", steps),
            *("LOG.PERIOD", 1, "DATASETS.TEST", [], "SOLVER.CHECKPOINT_PERIOD", 1000),
        ]
        names = [f"{name}_{'deterministic' if fixed else 'free'}" for name in ("straight", "again", "resumed")]
        straight, again, resumed = (trial.cfg(name, *overrides) for name in names)
        seconds = run(trial, straight)
        run(trial, again)
        process = start(trial, resumed)
        wait_for_first_iteration(resumed, process)
        process.terminate()
        status = process.wait(60 * MINUTES_FOR_A_COMMAND)
        newest = Checkpoints(Path(resumed.OUTPUT_DIR), 1).newest_first()
        stopped_at = int(newest[0].name.removeprefix("iter_")) if newest else None
        run(trial, resumed, "--resume")
        errors = [difference(straight, other) for other in (again, resumed)]
        stopped = status == 128 + signal.SIGTERM and stopped_at is not None and stopped_at <= 10
        if not stopped or (fixed and errors != [0, 0]):
            failed.append(f"SOLVER.DETERMINISTIC {fixed}")
        rows.append([fixed, f"{seconds:.0f} s", status, stopped_at, *(f"{error:.2g}" for error in errors)])
    headings = ["`SOLVER.DETERMINISTIC`", f"{steps} iterations", "status of SIGTERM", "after iterations"]
    headings += ["difference of two straight runs", "of the resumed one"]
    note = f"At {precision}; seconds are the whole command's, the difference is the largest of any weight."
    lines += [note, "", *table(headings, rows)]
    assert not failed


def difference(first, second):
    """Return the largest difference of any weight of two finished trainings; 0 is bit by bit the same."""
    weights, others = (
        open_checkpoint(Path(cfg.OUTPUT_DIR) / "model_final.safetensors").weights for cfg in (first, second)
    )
    if all(torch.equal(weights[name], others[name]) for name in weights):
        return 0.0
    return max((weights[name].double() - others[name].double()).abs().max().item() for name in weights)


def test_killed(trial, lines):
    """Of two processes that train together one is killed: the other ends, and the command says so."""
    if not trial.rehearsal and torch.cuda.device_count() < 2:
        pytest.skip("Left out: it takes two cards.")
    device = "cpu" if trial.rehearsal else "cuda"
    cfg = trial.cfg("killed", "MODEL.DEVICE", device, "SOLVER.MAX_ITER", 100_000, "LOG.PERIOD", 1, "DATASETS.TEST", [])
    process = start(trial, cfg, "--num-gpus", "2")
    try:
        wait_for_first_iteration(cfg, process)
        ranks = [p for p in psutil.Process(process.pid).children() if "spawn_main" in " ".join(p.cmdline())]
        ranks[-1].kill()
        began = time.perf_counter()
        status = process.wait(SECONDS_TO_END)
    except subprocess.TimeoutExpired:
        pytest.fail(f"The other process had not ended after {SECONDS_TO_END} s.")
    finally:
        for left in [*psutil.Process(process.pid).children(), process] if process.poll() is None else []:
            left.kill()
    seconds = time.perf_counter() - began
    ended = (
        f"{len(ranks)} processes over {'gloo, on the CPU' if trial.rehearsal else 'NCCL'}, one killed: "
        f"{seconds:.0f} s later the command ended with status {status}, saying:"
    )
    lines += [ended, "", "```", last_lines(cfg, 6), "```"]
    assert status != 0
    assert len(ranks) == 2


def test_memory(trial, lines):
    """847 classes on large images, read by worker processes, within Docker's 64 MB of shared memory."""
    if not Path("/dev/shm").is_dir():
        pytest.skip("Left out: there is no /dev/shm here.")
    names = [" ".join(pair) for pair in itertools.islice(itertools.product(words(), repeat=2), 847)]
    height, width, count = (3000, 4000, 24) if not trial.rehearsal else (200, 300, 3)
    folder = trial.folder / "large"
    write_images(folder, len(names), height, width, count)
    spec = spec_from_dict(
        {
            "name": "large_847",
            "image_dir": str(folder / "images"),
            "label_dir": str(folder / "labels"),
            "vocabulary": names,
            "ignore_label": 65535,
            "num_kept": 48,
        }
    )
    register(spec)
    cfg = trial.cfg(
        "little_memory", "DATASETS.TEST", [spec.name], "MODEL.CRM.NUM_KEPT", 48, "MODEL.WEIGHTS", str(ERR_SEG_WEIGHTS)
    )
    cfg.DATALOADER.NUM_WORKERS, cfg.TEST.BATCH_SIZE = 4 if not trial.rehearsal else 1, 1
    model = build_model(cfg)
    with shared_memory_peak() as peak:
        began = time.perf_counter()
        (result,) = evaluate(cfg, model)
        seconds = time.perf_counter() - began
    size = os.statvfs("/dev/shm").f_blocks * os.statvfs("/dev/shm").f_frsize
    lines += [
        f"{result.pictures} images of {height}×{width}, {cfg.DATALOADER.NUM_WORKERS} workers: at most "
        f"{peak[0] / MIB:.0f} MiB of /dev/shm, which has {size / MIB:.0f}; {1e3 * seconds / count:.0f} ms an image."
    ]
    assert trial.rehearsal or peak[0] <= SHARED_MEMORY


def write_images(folder, num_classes, height, width, count):
    """Write images with labels of many classes, in blocks, 16 bits each."""
    rng = np.random.default_rng(0)
    for index in range(count):
        blocks = rng.integers(0, num_classes, (10, 10)).astype(np.uint16)
        labels = blocks.repeat(height // 10, axis=0).repeat(width // 10, axis=1)
        for name, array, ending in (
            ("images", np.stack([labels % 251, labels % 241, labels % 239], axis=-1).astype(np.uint8), ".jpg"),
            ("labels", labels, ".png"),
        ):
            (folder / name).mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(folder / name / f"{index:02}{ending}")


@contextmanager
def shared_memory_peak():
    """Watch how many bytes of /dev/shm are taken, beyond those at first; the highest number stands in a list of one."""
    stop, before, peak = threading.Event(), psutil.disk_usage("/dev/shm").used, [0]

    def watch():
        while not stop.wait(0.002):
            peak[0] = max(peak[0], psutil.disk_usage("/dev/shm").used - before)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        stop.set()
        thread.join()
