"""Measures what a prediction costs: time, and memory above that of the loaded model."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import psutil
import torch
from rich.console import Console
from rich.table import Table

from err_seg.build import build_model
from err_seg.config import Config

SAMPLING_SECONDS = 0.005


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


def benchmark_prediction(
    cfg: Config, *, num_classes: int, num_kept: int | None, image: tuple[int, int], repeat: int
) -> None:
    """Run the same prediction several times and print a table; the first run also encodes the vocabulary.

    Args:
        cfg: the configuration; weights do not matter.
        num_classes: T.
        num_kept: K, instead of the configuration's.
        image: (H, W).
        repeat: predictions after the first.
    """
    cfg.MODEL.TEXT.CACHE_DIR = "none"
    model = build_model(cfg)
    height, width = image
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    vocabulary = [f"thing number {i}" for i in range(num_classes)]
    title = f"{cfg.MODEL.CLIP.NAME} on {model.device}, S = {cfg.INPUT.SIZE}, T = {num_classes}, {image[0]}×{image[1]}"
    table = Table("prediction", title=title)
    for column in ("seconds", "GB above the loaded model"):
        table.add_column(column, justify="right")
    with peak_memory(model.device) as peak:
        for number in range(1 + repeat):
            start = time.perf_counter()
            result = model.predict(pixels, vocabulary, num_kept=num_kept)
            kept_maps = result.maps  # the K maps at full size, and labels and scores
            checksum = result.labels.sum().item() + kept_maps[0, 0, 0].item()
            seconds = time.perf_counter() - start
            name = "first, with the vocabulary" if number == 0 else f"{number}"
            table.add_row(name, f"{seconds:.2f}", f"{peak() / 1e9:.2f}")
            del result, kept_maps, checksum
    Console().print(table)
