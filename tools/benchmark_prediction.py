#!/usr/bin/env python
"""Measure what a prediction costs: time, and memory above that of the loaded model.

    python tools/benchmark_prediction.py --config-file configs/err_seg_convnext_b.yaml \\
        --num-classes 847 --num-kept 48 --picture 1500 2000 MODEL.CLIP.PRETRAINED ""

Weights do not matter for this, so random ones will do. The first prediction also encodes the vocabulary.
"""

import argparse
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import psutil
import torch
from rich.console import Console
from rich.table import Table

import err_seg

SAMPLING_SECONDS = 0.005


@contextmanager
def peak_memory(device: torch.device) -> Iterator[Callable[[], float]]:
    """Watch the memory in use, on the device or (CPU) by the process; gives a function for the peak in bytes."""
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


def main() -> int:
    """Run the predictions and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config-file", required=True, metavar="FILE", help="a YAML file of configs/")
    parser.add_argument("--num-classes", type=int, default=150, metavar="T", help="size of the vocabulary (150)")
    parser.add_argument("--num-kept", type=int, metavar="K", help="classes kept; default: the configuration's")
    parser.add_argument("--picture", type=int, nargs=2, default=(480, 640), metavar=("H", "W"), help="size (480 640)")
    parser.add_argument("--repeat", type=int, default=3, help="predictions timed after the first (3)")
    parser.add_argument("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="overrides of the configuration")
    arguments = parser.parse_args()
    try:
        cfg = err_seg.get_cfg(arguments.config_file, [*arguments.opts, "MODEL.TEXT.CACHE_DIR", "none"])
        model = err_seg.build_model(cfg)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    picture = np.random.default_rng(0).integers(0, 256, (*arguments.picture, 3), dtype=np.uint8)
    vocabulary = [f"thing number {i}" for i in range(arguments.num_classes)]

    height, width = arguments.picture
    title = f"{cfg.MODEL.CLIP.NAME} on {model.device}, S = {cfg.INPUT.SIZE}, T = {len(vocabulary)}, {height}×{width}"
    table = Table("prediction", title=title)
    for column in ("seconds", "GB above the loaded model"):
        table.add_column(column, justify="right")
    with peak_memory(model.device) as peak:
        for number in range(1 + arguments.repeat):
            start = time.perf_counter()
            result = model.predict(picture, vocabulary, num_kept=arguments.num_kept)
            kept_maps = result.maps  # the K maps at full size, and labels and scores
            checksum = result.labels.sum().item() + kept_maps[0, 0, 0].item()
            seconds = time.perf_counter() - start
            name = "first, with the vocabulary" if number == 0 else f"{number}"
            table.add_row(name, f"{seconds:.2f}", f"{peak() / 1e9:.2f}")
            del result, kept_maps, checksum
    Console().print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
