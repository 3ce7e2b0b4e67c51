"""What a training run writes while it runs: the log, metrics.json, TensorBoard, Weights & Biases, damaged.txt."""

import datetime
import importlib
import json
import logging
import math
import statistics
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from accelerate.tracking import GeneralTracker, TensorBoardTracker, WandBTracker
from filelock import FileLock

from err_seg.config import Config
from err_seg.utils.disk import writing
from err_seg.utils.files import write_text

logger = logging.getLogger(__name__)

MEBIBYTE = 1 << 20


class RunLog:
    """Everything that a run writes about its progress; only the main process has one.

    Every ``LOG.PERIOD`` iterations there is a line in the log and one in ``metrics.json``, the latter in detectron2's
    format: a JSON object with ``iteration`` (from 0), ``total_loss`` (the mean since the last line), ``lr`` (the
    highest of the groups), ``time`` and ``data_time`` (seconds an iteration, median), ``eta_seconds`` and ``max_mem``
    (MiB); with loss scaling also ``loss_scale`` and ``skipped_steps`` (since iteration 0). Where the loss has several
    terms, there are also the means of each: ``loss_sem_seg``, ``loss_distill``, ``loss_<name>``. Numbers that are not
    finite are left out of a mean; it is null where none is finite. An evaluation has a line of its own, with metrics
    such as ``sem_seg/mIoU``.

    Args:
        device: where the network is.
        start: iterations done before; what earlier runs wrote about later ones is removed.
        averaged: by name, the numbers of iterations before ``start`` that no line contains yet.
    """

    def __init__(self, cfg: Config, device: torch.device, start: int, averaged: Mapping[str, Sequence[float]]):
        self.period, self.last = cfg.LOG.PERIOD, cfg.SOLVER.MAX_ITER
        self.device = device
        self.averaged = {name: list(values) for name, values in averaged.items()}
        self._times: list[tuple[float, float]] = []
        self.output = output = Path(cfg.OUTPUT_DIR)
        keep_lines_before(output / "metrics.json", start)
        self._metrics = (output / "metrics.json").open("a", encoding="utf-8")
        self._trackers: list[GeneralTracker] = []
        if cfg.LOG.TENSORBOARD:
            self._trackers.append(TensorBoardTracker("tensorboard", str(output), purge_step=start))
        if cfg.LOG.WANDB_PROJECT:
            self._trackers.append(WandBTracker(cfg.LOG.WANDB_PROJECT, dir=str(output), config=asdict(cfg)))
        for tracker in self._trackers:
            tracker.start()

    def iteration(
        self,
        iteration: int,
        averaged: Mapping[str, float],
        lr: float,
        seconds: float,
        data_seconds: float,
        **further: float,
    ) -> None:
        """Record an iteration (from 0); every ``LOG.PERIOD`` iterations, and after the last, write a line.

        The line has the means of the ``averaged`` numbers, of which ``total_loss`` must be one.
        """
        for name, value in averaged.items():
            self.averaged.setdefault(name, []).extend([value] if math.isfinite(value) else [])
        self._times.append((seconds, data_seconds))
        done = iteration + 1
        if done % self.period and done != self.last:
            return
        time, data_time = (statistics.median(column) for column in zip(*self._times, strict=True))
        means = {name: statistics.fmean(values) if values else None for name, values in self.averaged.items()}
        total_loss = means.pop("total_loss")
        line: dict[str, Any] = {
            "data_time": data_time,
            "eta_seconds": time * (self.last - done),
            "iteration": iteration,
            "lr": lr,
            "max_mem": max_memory(self.device),
            "time": time,
            "total_loss": total_loss,
            **means,
            **further,
        }
        self.averaged, self._times = {}, []
        self.write(line)
        logger.info(
            "eta: %s  iter: %d/%d  total_loss: %.4f  time: %.4f  data_time: %.4f  lr: %.4g  max_mem: %.0fM%s",
            datetime.timedelta(seconds=round(line["eta_seconds"])),
            *(done, self.last, math.nan if total_loss is None else total_loss, time, data_time, lr, line["max_mem"]),
            "".join(f"  {name}: {value:g}" for name, value in {**means, **further}.items() if value is not None),
        )

    def write(self, line: dict[str, Any]) -> None:
        """Write a line, which has an ``iteration`` (from 0), to ``metrics.json``, and its numbers to the trackers."""
        with writing(self._metrics.name):
            self._metrics.write(json.dumps(line) + "\n")
            self._metrics.flush()
        step, values = line["iteration"], {n: v for n, v in line.items() if n != "iteration" and v is not None}
        for tracker in self._trackers:
            with writing(self.output / tracker.name):
                tracker.log(values, step=step)

    def image(self, iteration: int, image: Any) -> None:
        """Show an (H, W, 3) uint8 RGB array in TensorBoard and Weights & Biases."""
        for tracker in self._trackers:
            with writing(self.output / tracker.name):
                if tracker.name == "wandb":
                    shown = importlib.import_module("wandb").Image(image)  # log_images would log a list of images
                    tracker.log({"predictions": shown}, step=iteration)
                else:
                    tracker.log_images({"predictions": image[None]}, step=iteration, dataformats="NHWC")

    def close(self) -> None:
        """Close the files."""
        with writing(self._metrics.name):
            self._metrics.close()
        for tracker in self._trackers:
            with writing(self.output / tracker.name):
                if tracker.name == "tensorboard":
                    tracker.tracker.flush()  # unlike finish, it raises an error if something could not be written
                tracker.finish()


def keep_lines_before(file: Path, iteration: int) -> None:
    """Keep a metrics file's lines of iterations before the given one, without a line that a kill left incomplete."""
    if not file.is_file():
        return
    kept = []
    for line in file.read_text(encoding="utf-8").splitlines():
        with suppress(ValueError, KeyError, TypeError):
            if json.loads(line)["iteration"] < iteration:
                kept.append(line + "\n")
    write_text(file, "".join(kept))


def max_memory(device: torch.device) -> float:
    """Most memory used so far in MiB, by the CUDA device, else by this process (0 if the system does not say)."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / MEBIBYTE
    try:
        import resource
    except ImportError:  # Windows
        return 0.0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / MEBIBYTE if sys.platform == "darwin" else peak / 1024


class SkippedSamples:
    """``OUTPUT_DIR/damaged.txt``: one line for each pair that training skips with ``DATALOADER.SKIP_DAMAGED``.

    A line says what is wrong with the pair. Several processes of the run may share the file.
    """

    def __init__(self, output: Path):
        self.file = output / "damaged.txt"

    def add(self, problems: Sequence[str]) -> None:
        """Add pairs to the list, and log the new ones."""
        if not problems:
            return
        with FileLock(self.file.with_name(f".{self.file.name}.lock")):
            listed = self.file.read_text(encoding="utf-8").splitlines() if self.file.exists() else []
            lines = dict.fromkeys(" ".join(problem.splitlines()) for problem in problems)
            new = [line for line in lines if line not in listed]
            if not new:
                return
            write_text(self.file, "".join(f"{line}\n" for line in (*listed, *new)))
        for line in new:
            logger.warning("skipping a damaged pair, the next one takes its place: %s", line)
        logger.warning("damaged pairs so far: %d, listed in %s", len(listed) + len(new), self.file)
