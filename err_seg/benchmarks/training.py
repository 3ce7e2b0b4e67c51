"""Compares the cost of a training step with the loss on the kept classes and with the dense loss over all classes.

The dense loss is the textbook one: logits of all T classes, those not kept at -100, against one-hot targets. Both give
the same number, which is checked. Every row is measured in a separate process, so that its peak memory is its own:
allocated memory on a CUDA device, resident memory on the CPU.
"""

import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import psutil
import torch
from torch import Tensor
from torch.nn import functional as F

from err_seg.build import build_model
from err_seg.config import Config
from err_seg.device import PRECISIONS, resolve_device, resolve_precision
from err_seg.engine import build_optimizer
from err_seg.engine.run_log import peak_memory
from err_seg.engine.step import vocabulary_input
from err_seg.modeling.layers import resize
from err_seg.modeling.loss import segmentation_loss

ABSENT = -100.0
CLASSES_A_IMAGE = 8
Figures = dict[str, dict[str, dict[str, float]]]
Loss = Callable[[Tensor, Tensor, Tensor, int], Tensor]


class BenchmarkError(ValueError):
    """The compared losses are not the same; the message gives them."""


def dense_loss(logits: Tensor, kept: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Mean binary cross-entropy over a map of all T classes; arguments as ``segmentation_loss``."""
    batch, _, height, width = logits.shape
    dense = logits.new_full((batch, num_classes, height, width), ABSENT)
    dense = dense.scatter(1, kept[:, :, None, None].expand_as(logits), logits)
    dense = resize(dense.float(), labels.shape[-2:])  # B×T×H×W
    targets = torch.zeros_like(dense).scatter_(1, labels.unsqueeze(1), 1.0)
    return F.binary_cross_entropy_with_logits(dense, targets)


LOSSES: dict[str, Loss] = {"kept classes": segmentation_loss, "all classes": dense_loss}


def blocks(batch_size: int, size: int, num_classes: int) -> Tensor:
    """Return label maps (B, S, S) int64 of a few large regions each."""
    generator = torch.Generator().manual_seed(0)
    classes = torch.randint(0, num_classes, (batch_size, CLASSES_A_IMAGE // 2, 2), generator=generator)
    rows = classes.repeat_interleave(size // (CLASSES_A_IMAGE // 2), dim=1)
    return rows.repeat_interleave(size // 2, dim=2)


def measure_step(kind: str, cfg: Config, vocabulary: tuple[str, ...], batch_size: int, steps: int) -> dict[str, float]:
    """Measure whole steps: forward, loss, backward and AdamW."""
    device = resolve_device(cfg.MODEL.DEVICE)
    model = build_model(cfg).train()
    text, optimizer = vocabulary_input(model, vocabulary), build_optimizer(model, cfg)
    precision = PRECISIONS[resolve_precision(cfg.SOLVER.PRECISION, device).name]
    size = cfg.INPUT.CROP_SIZE
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(batch_size, 3, size, size, generator=generator).to(device)
    labels = blocks(batch_size, size, len(vocabulary)).to(device)

    torch.manual_seed(0)  # stochastic depth

    def step() -> Tensor:
        with torch.autocast(device.type, dtype=precision, enabled=precision is not None):
            prediction = model(images, text, labels=labels)
            loss = LOSSES[kind](prediction.logits, prediction.kept, labels, len(vocabulary))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        return loss

    return timed(step, steps, device)


def measure_loss(kind: str, cfg: Config, vocabulary: tuple[str, ...], batch_size: int, steps: int) -> dict[str, float]:
    """Measure the loss alone, forward and backward, on random logits."""
    device, size = resolve_device(cfg.MODEL.DEVICE), cfg.INPUT.CROP_SIZE
    num_classes, num_kept = len(vocabulary), cfg.MODEL.CRM.NUM_KEPT_TRAIN
    generator = torch.Generator().manual_seed(0)
    labels = blocks(batch_size, size, num_classes)
    kept = torch.stack([keep_present(image, num_classes, num_kept) for image in labels])
    logits = torch.randn(*kept.shape, size // 4, size // 4, generator=generator)
    logits, kept, labels = logits.to(device).requires_grad_(), kept.to(device), labels.to(device)

    def step() -> Tensor:
        loss = LOSSES[kind](logits, kept, labels, num_classes)
        loss.backward()
        return loss

    return timed(step, steps, device)


def keep_present(labels: Tensor, num_classes: int, num_kept: int) -> Tensor:
    """Return K class indices, ascending, those in the label map (S, S) among them."""
    present = labels.unique()
    others = [index for index in range(num_classes) if index not in present]
    return torch.cat([present, torch.tensor(others)])[:num_kept].sort().values


def timed(step: Callable[[], Tensor], steps: int, device: torch.device) -> dict[str, float]:
    """Run a step once to warm up, then some times; give median seconds, memory it takes in MiB, and first loss."""
    before = (
        torch.cuda.memory_allocated(device) / 2**20
        if device.type == "cuda"
        else psutil.Process().memory_info().rss / 2**20
    )
    loss, seconds = step().item(), []
    for _ in range(steps):
        start = time.perf_counter()
        step().item()  # waits for the device
        seconds.append(time.perf_counter() - start)
    return {"seconds": statistics.median(seconds), "memory": peak_memory(device) - before, "loss": loss}


MEASUREMENTS = {"training step": measure_step, "loss alone": measure_loss}


def benchmark_training(cfg: Config, vocabulary: tuple[str, ...], *, batch_size: int, steps: int) -> Figures:
    """Measure every combination, and print the table as it grows.

    Args:
        cfg: the configuration; weights do not matter.
        vocabulary: the T classes.
        batch_size: images per step.
        steps: timed steps, after one that warms up.

    Returns:
        What is measured → loss → "seconds", "memory" (MiB) and "loss".

    Raises:
        BenchmarkError: the two losses differ.
    """
    device = resolve_device(cfg.MODEL.DEVICE)
    print(
        f"{cfg.MODEL.CLIP.NAME}, S = {cfg.INPUT.CROP_SIZE}, {batch_size} images, T = {len(vocabulary)} classes, "
        f"K = {cfg.MODEL.CRM.NUM_KEPT_TRAIN}, {resolve_precision(cfg.SOLVER.PRECISION, device).name}, {device}"
    )
    print(f"{'':14} {'loss over':14} {'seconds':>9} {'memory MiB':>11} {'loss':>9}")
    figures: Figures = {}
    for what, measure in MEASUREMENTS.items():
        for kind in LOSSES:
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
                row = process.submit(measure, kind, cfg, vocabulary, batch_size, steps).result()
            figures.setdefault(what, {})[kind] = row
            print(f"{what:14} {kind:14} {row['seconds']:9.3f} {row['memory']:11.0f} {row['loss']:9.5f}", flush=True)
        kept, dense = figures[what].values()
        ratios = [dense[name] / kept[name] for name in ("seconds", "memory")]
        print(f"{what:14} {'ratio':14} {ratios[0]:8.2f}x {ratios[1]:10.2f}x")
        if abs(dense["loss"] - kept["loss"]) > 1e-3 * abs(kept["loss"]):
            raise BenchmarkError(f"the two losses differ, {kept['loss']} and {dense['loss']}; the comparison is void")
    return figures
