"""Learning rates. They follow from the iteration alone, so there is nothing to save or restore."""

import math

import torch

from err_seg.config import Config


def lr_factor(iteration: int, cfg: Config) -> float:
    """Learning rate of an iteration (from 0), as a factor of the group's own.

    ``SOLVER.LR_SCHEDULER_NAME`` names one of detectron2's curves, which fall from 1 to 0 at ``MAX_ITER`` after a linear
    warm-up from ``WARMUP_FACTOR`` over ``WARMUP_ITERS`` iterations. "WarmupCosineLR" is half a cosine, which the
    warm-up rises to. "WarmupPolyLR" is ``(1 - iteration / MAX_ITER) ** POLY_LR_POWER``; the warm-up is multiplied by
    it, and after the warm-up it is at least ``POLY_LR_CONSTANT_ENDING``.
    """
    solver = cfg.SOLVER
    warmup = min(solver.WARMUP_ITERS, solver.MAX_ITER)
    is_warm = iteration >= warmup
    share = 1.0 if is_warm else iteration / warmup
    if solver.LR_SCHEDULER_NAME == "WarmupPolyLR":
        poly = (1 - iteration / solver.MAX_ITER) ** solver.POLY_LR_POWER
        rise = solver.WARMUP_FACTOR + (1 - solver.WARMUP_FACTOR) * share
        return max(poly, solver.POLY_LR_CONSTANT_ENDING) if is_warm else rise * poly
    cosine = 0.5 * (1 + math.cos(math.pi * max(iteration, warmup) / solver.MAX_ITER))
    return cosine if is_warm else solver.WARMUP_FACTOR + (cosine - solver.WARMUP_FACTOR) * share


def set_learning_rates(optimizer: torch.optim.Optimizer, cfg: Config, iteration: int) -> float:
    """Give each group its learning rate for an iteration (from 0), and return the highest."""
    factor = lr_factor(iteration, cfg)
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] * factor
    return max(group["lr"] for group in optimizer.param_groups)


def build_schedule(
    optimizer: torch.optim.Optimizer, cfg: Config, *, start: int = 0
) -> torch.optim.lr_scheduler.LambdaLR:
    """Build the same curve as a torch scheduler, to be stepped once per iteration; ``start`` iterations are done."""
    return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda iteration: lr_factor(start + iteration, cfg))
