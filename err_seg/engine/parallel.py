"""Training in several processes, with a divided network and at low precision, by accelerate and torch.distributed."""

import functools
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedDataParallelKwargs
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

from err_seg.config import Config, ConfigError
from err_seg.engine.optimizer import build_optimizer
from err_seg.prediction.model import ERRSeg
from err_seg.utils.device import resolve_precision

PRODUCTS = ("mm", "convolution", "attention")
"""Parts of the names of torch's operations that are expensive to repeat."""


def build_accelerator(cfg: Config, device: torch.device) -> Accelerator:
    """Build accelerate's object for this process: its rank, precision and device (where the model already is).

    Raises:
        ConfigError: fp16 on the CPU.
    """
    precision = resolve_precision(cfg.SOLVER.PRECISION, device).name
    if precision == "fp16" and device.type == "cpu":
        raise ConfigError('SOLVER.PRECISION "fp16" needs a GPU; on the CPU use "bf16" or "fp32"')
    # accelerate keeps the first accelerator's settings for the life of the process and refuses other ones
    AcceleratorState._reset_state(reset_partial_state=True)
    return Accelerator(
        cpu=device.type == "cpu",
        mixed_precision="no" if precision == "fp32" else precision,
        kwargs_handlers=[DistributedDataParallelKwargs(gradient_as_bucket_view=True)],
    )


def images_at_a_time(cfg: Config, processes: int) -> int:
    """Return how many images a process runs through the network together.

    Raises:
        ConfigError: ``SOLVER.IMS_PER_BATCH`` cannot be shared out evenly.
    """
    images, steps = cfg.SOLVER.IMS_PER_BATCH, cfg.SOLVER.ACCUMULATION_STEPS
    parts = processes * steps
    if images % parts:
        near = " or ".join(str(n) for n in (images // parts * parts, (images // parts + 1) * parts) if n)
        raise ConfigError(
            f"SOLVER.IMS_PER_BATCH = {images} images cannot be shared out evenly over {processes} processes × "
            f"SOLVER.ACCUMULATION_STEPS = {steps}; use {near} images, or other numbers of either"
        )
    return images // parts


def distribute(cfg: Config, accelerator: Accelerator, model: ERRSeg) -> tuple[nn.Module, torch.optim.AdamW]:
    """Build the module to call in place of the model, as ``SOLVER.PARALLEL`` and ``COMPILE`` say, and its optimizer."""
    network: Any = model
    if cfg.SOLVER.PARALLEL == "fsdp" and accelerator.num_processes > 1:
        mesh = init_device_mesh(model.device.type, (accelerator.num_processes,))
        for block in model.blocks():
            fully_shard(block, mesh=mesh)
        scalars = {parameter for parameter in model.parameters() if parameter.dim() == 0}  # a scalar cannot be divided
        fully_shard(model, mesh=mesh, ignored_params=scalars)
    else:
        network = accelerator.prepare(model, device_placement=[False])
        if isinstance(network, DistributedDataParallel):
            network.broadcast_buffers = False  # they are constants, made equal at the start
    optimizer = build_optimizer(model, cfg)  # on the model's parts, if it was divided
    if cfg.SOLVER.COMPILE:
        network = torch.compile(network, backend=cfg.SOLVER.COMPILE)
    return network, optimizer


def gradient_sync(
    accelerator: Accelerator, model: ERRSeg, network: nn.Module, *, is_last: bool
) -> AbstractContextManager[None]:
    """Return a context that sums gradients over processes with the last part of a batch, and only adds those before."""
    if isinstance(model, FSDPModule):
        model.set_requires_gradient_sync(is_last)
        return nullcontext()
    return nullcontext() if is_last else accelerator.no_sync(network)


@contextmanager
def activation_checkpointing(model: ERRSeg, cfg: Config) -> Iterator[None]:
    """During a ``with`` block, recompute the network's repeated blocks in the backward pass, as ``SOLVER`` says.

    Whole blocks keep nothing but their input. With "elementwise", results of products, convolutions and attention are
    kept, and what lies between them, which takes hardly any time, is recomputed.
    """
    options: dict[str, Any] = {"use_reentrant": False}
    if cfg.SOLVER.RECOMPUTED == "elementwise":
        options["context_fn"] = functools.partial(create_selective_checkpoint_contexts, _keep_products)
    blocks = model.blocks() if cfg.SOLVER.ACTIVATION_CHECKPOINTING else []
    for block in blocks:
        block.forward = functools.partial(checkpoint, block.forward, **options)
    try:
        yield
    finally:
        for block in blocks:
            del block.forward


def _keep_products(context: Any, operation: Any, *args: Any, **kwargs: Any) -> CheckpointPolicy:
    """Say whether a selective checkpoint keeps an operation's result."""
    keep = any(word in operation.name() for word in PRODUCTS)
    return CheckpointPolicy.MUST_SAVE if keep else CheckpointPolicy.PREFER_RECOMPUTE
