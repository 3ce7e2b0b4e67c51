"""How weights change: AdamW with the published parameter groups, gradient clipping, learning rates, moving average."""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.utils import clip_grad_norm_, clip_grad_value_
from torch.optim.swa_utils import get_ema_multi_avg_fn

from err_seg.config import Config
from err_seg.config.defaults import ClipGradientsConfig
from err_seg.utils.errors import TrainingError

NORMS = (nn.LayerNorm, nn.GroupNorm, nn.modules.batchnorm._BatchNorm)
CLIP_PREFIX = "encoder."


def parameter_groups(model: nn.Module, cfg: Config) -> list[dict[str, Any]]:
    """Group the trainable parameters by learning rate and weight decay.

    CLIP's parameters, including HSM's convolution, get the learning rate ``BASE_LR · CLIP_MULTIPLIER``; parameters of
    norm layers get the weight decay ``WEIGHT_DECAY_NORM``.

    Returns:
        Groups as ``torch.optim`` takes them. They also have ``"names"``, in the order of ``"params"``, and
        ``"initial_lr"``, from which schedules start.
    """
    solver = cfg.SOLVER
    norms = {id(p) for module in model.modules() if isinstance(module, NORMS) for p in module.parameters(recurse=False)}
    groups: dict[tuple[float, float], dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        lr = solver.BASE_LR * (solver.CLIP_MULTIPLIER if name.startswith(CLIP_PREFIX) else 1.0)
        decay = solver.WEIGHT_DECAY_NORM if id(parameter) in norms else solver.WEIGHT_DECAY
        new = {"params": [], "names": [], "lr": lr, "initial_lr": lr, "weight_decay": decay}
        group = groups.setdefault((lr, decay), new)
        group["params"].append(parameter)
        group["names"].append(name)
    return list(groups.values())


def clip_before_step(optimizer: Any, clip: ClipGradientsConfig) -> None:
    """Clip the gradients of an optimizer that is about to step, in place, as ``SOLVER.CLIP_GRADIENTS`` says.

    ``CLIP_TYPE`` "value" cuts each number to ±``CLIP_VALUE``; "norm" scales each parameter's gradient down to a norm of
    ``CLIP_VALUE`` (``NORM_TYPE``: 2, or another p); both are detectron2's. "full_model" scales all
    gradients by the norm of all of them together, as Mask2Former and similar code do.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    scale = getattr(optimizer, "grad_scale", None)
    if scale is not None:  # a GradScaler leaves the division to a fused step, but clipping comes first
        for parameter in parameters:
            parameter.grad.div_(scale)
        optimizer.grad_scale = None
    if clip.CLIP_TYPE == "value":
        clip_grad_value_(parameters, clip.CLIP_VALUE)
        return
    for together in [parameters] if clip.CLIP_TYPE == "full_model" else [[parameter] for parameter in parameters]:
        clip_grad_norm_(together, clip.CLIP_VALUE, clip.NORM_TYPE)


def build_optimizer(model: nn.Module, cfg: Config) -> torch.optim.AdamW:
    """Build AdamW on the trainable parameters of the model; on CUDA its step is one kernel that never waits."""
    groups, solver = parameter_groups(model, cfg), cfg.SOLVER
    is_cuda = next(model.parameters()).device.type == "cuda"
    options: dict[str, Any] = {"betas": tuple(solver.BETAS), "eps": solver.EPS, "fused": is_cuda or None}
    optimizer = torch.optim.AdamW(groups, **options)
    if solver.CLIP_GRADIENTS.ENABLED:
        optimizer.register_step_pre_hook(lambda stepped, *_: clip_before_step(stepped, solver.CLIP_GRADIENTS))
    return optimizer


def whole(tensor: Tensor) -> Tensor:
    """Return a tensor in one piece; if it is divided over processes, all must call this."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def shared_like(value: Tensor, parameter: Tensor) -> Tensor:
    """Divide a whole tensor over the processes like a parameter of its shape; the inverse of :func:`whole`."""
    if isinstance(parameter, DTensor) and value.shape == parameter.shape:
        return distribute_tensor(value.to(parameter.device), parameter.device_mesh, parameter.placements)
    return value


def gather_optimizer_state(optimizer: torch.optim.Optimizer) -> dict[str, dict[str, Tensor]]:
    """Return each parameter's optimizer state by name, whole and on the CPU; all processes must call this.

    It is empty for a parameter that has not been stepped yet, as when loss scaling has skipped every step.
    """
    return {
        name: {key: whole(value).cpu() for key, value in optimizer.state.get(parameter, {}).items()}
        for group in optimizer.param_groups
        for name, parameter in zip(group["names"], group["params"], strict=True)
    }


def restore_optimizer_state(optimizer: torch.optim.Optimizer, state: dict[str, dict[str, Tensor]]) -> None:
    """Restore what :func:`gather_optimizer_state` returned; learning rates stay those of the configuration.

    Raises:
        TrainingError: the parameters that train are not those that trained when the state was saved.
    """
    names = [name for group in optimizer.param_groups for name in group["names"]]
    if state and set(names) != state.keys():  # (earlier versions left out parameters not stepped yet)
        differing = sorted(set(names) ^ state.keys())
        raise TrainingError(
            f"cannot resume: {len(differing)} parameters train in the checkpoint or now, not both, such as "
            f"{differing[0]}; resume with the MODEL.*_TUNING settings that the run began with"
        )
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    entries = {
        index: {key: shared_like(value, parameter) for key, value in state[name].items()}
        for index, (name, parameter) in enumerate(zip(names, parameters, strict=True))
        if state.get(name)
    }
    optimizer.load_state_dict({"state": entries, "param_groups": optimizer.state_dict()["param_groups"]})


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


class WeightAverage:
    """The exponential moving average of a model's trainable weights, divided over processes in the same way.

    It starts from the present weights; each update gives the old average the weight ``decay``.
    """

    def __init__(self, model: nn.Module, decay: float):
        self._parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self._averages = {name: p.detach().clone() for name, p in self._parameters.items()}
        self._update = get_ema_multi_avg_fn(decay)

    def update(self) -> None:
        """Update the average with the present weights."""
        averages, parameters = (
            [t.to_local() if isinstance(t, DTensor) else t for t in tensors.values()]
            for tensors in (self._averages, self._parameters)
        )
        self._update(averages, parameters, 0)  # without gradient

    def state(self) -> dict[str, Tensor]:
        """Return parameter name to average, whole and on the CPU; all processes must call this."""
        return {name: whole(average).cpu() for name, average in self._averages.items()}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Continue from a value of :meth:`state`; from the present weights if it is empty."""
        for name, value in state.items():
            self._averages[name].copy_(shared_like(value, self._parameters[name]))
