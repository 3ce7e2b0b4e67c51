"""AdamW with the published parameter groups, and its schedule."""

import math
from typing import Any

import torch
from fvcore.common.config import CfgNode
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from err_seg.engine.errors import TrainingError

NORMS = (nn.LayerNorm, nn.GroupNorm, nn.modules.batchnorm._BatchNorm)
CLIP_PREFIX = "encoder."


def parameter_groups(model: nn.Module, cfg: CfgNode) -> list[dict[str, Any]]:
    """Group the trainable parameters by learning rate and weight decay.

    CLIP's parameters (HSM's convolution with them) get ``BASE_LR · CLIP_MULTIPLIER``, those of norm layers
    ``WEIGHT_DECAY_NORM``.

    Returns:
        Groups as ``torch.optim`` takes them, with a ``"names"`` entry beside ``"params"``.
    """
    solver = cfg.SOLVER
    norms = {id(p) for module in model.modules() if isinstance(module, NORMS) for p in module.parameters(recurse=False)}
    groups: dict[tuple[float, float], dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        lr = solver.BASE_LR * (solver.CLIP_MULTIPLIER if name.startswith(CLIP_PREFIX) else 1.0)
        decay = solver.WEIGHT_DECAY_NORM if id(parameter) in norms else solver.WEIGHT_DECAY
        group = groups.setdefault((lr, decay), {"params": [], "names": [], "lr": lr, "weight_decay": decay})
        group["params"].append(parameter)
        group["names"].append(name)
    return list(groups.values())


def build_optimizer(model: nn.Module, cfg: CfgNode) -> torch.optim.AdamW:
    """Build AdamW on the trainable parameters of the model."""
    return torch.optim.AdamW(parameter_groups(model, cfg), betas=tuple(cfg.SOLVER.BETAS), eps=cfg.SOLVER.EPS)


def lr_factor(iteration: int, cfg: CfgNode) -> float:
    """Learning rate of an iteration (from 0) over the group's own.

    Half a cosine from 1 to 0 at ``MAX_ITER``, which the first ``WARMUP_ITERS`` iterations rise linearly to meet, from
    ``WARMUP_FACTOR`` on (detectron2's ``WarmupCosineLR``).
    """
    solver = cfg.SOLVER
    warmup = min(solver.WARMUP_ITERS, solver.MAX_ITER)
    cosine = 0.5 * (1 + math.cos(math.pi * max(iteration, warmup) / solver.MAX_ITER))
    if iteration >= warmup:
        return cosine
    return solver.WARMUP_FACTOR + (cosine - solver.WARMUP_FACTOR) * iteration / warmup


def build_schedule(
    optimizer: torch.optim.Optimizer, cfg: CfgNode, *, start: int = 0
) -> torch.optim.lr_scheduler.LambdaLR:
    """Build the schedule, to be stepped once an iteration; ``start`` iterations are done already."""
    return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda iteration: lr_factor(start + iteration, cfg))


def whole(tensor: Tensor) -> Tensor:
    """Return a tensor in one piece; all processes must ask where it is shared out."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def gather_optimizer_state(optimizer: torch.optim.Optimizer) -> dict[str, dict[str, Tensor]]:
    """Return parameter name to optimizer state, whole and on the CPU; all processes must ask."""
    return {
        name: {key: whole(value).cpu() for key, value in optimizer.state[parameter].items()}
        for group in optimizer.param_groups
        for name, parameter in zip(group["names"], group["params"], strict=True)
        if parameter in optimizer.state
    }


def restore_optimizer_state(optimizer: torch.optim.Optimizer, state: dict[str, dict[str, Tensor]]) -> None:
    """Give the optimizer the state of :func:`gather_optimizer_state`; learning rates stay the configuration's.

    Raises:
        TrainingError: other parameters train now than when the state was saved.
    """
    names = [name for group in optimizer.param_groups for name in group["names"]]
    if set(names) != state.keys():
        differing = sorted(set(names) ^ state.keys())
        raise TrainingError(
            f"cannot resume: {len(differing)} parameters train in the checkpoint or now, not both, such as "
            f"{differing[0]}; resume with the MODEL.*_TUNING settings that the run began with"
        )
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    entries = {
        index: {key: _shared_like(value, parameter) for key, value in state[name].items()}
        for index, (name, parameter) in enumerate(zip(names, parameters, strict=True))
    }
    optimizer.load_state_dict({"state": entries, "param_groups": optimizer.state_dict()["param_groups"]})


def _shared_like(value: Tensor, parameter: Tensor) -> Tensor:
    if isinstance(parameter, DTensor) and value.shape == parameter.shape:
        return distribute_tensor(value.to(parameter.device), parameter.device_mesh, parameter.placements)
    return value
