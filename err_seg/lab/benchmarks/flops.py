"""What a network costs: parameters and multiply-adds, counted without computing anything."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from err_seg.modeling.layers import GuidedConv2d, GuidedLinear
from err_seg.prediction.model import ERRSeg


@dataclass(frozen=True)
class NetworkCost:
    """Parameters and multiply-adds (MAC) of a network on one image, without the text tower, whose result is cached.

    Attributes:
        parameters: all, including CLIP's text tower; ``outside_clip`` and ``trainable`` are parts of them.
        macs: by part of the network, in the order of the forward pass.
        repeated_guidance_macs: what is saved by projecting guidance once per image instead of once per class or
            place; counts of other implementations contain it.
    """

    parameters: int
    outside_clip: int
    trainable: int
    macs: dict[str, int]
    repeated_guidance_macs: int


def network_cost(model: ERRSeg, *, num_classes: int, num_kept: int | None, size: int) -> NetworkCost:
    """Count a network's parameters and multiply-adds.

    Args:
        model: an ``ERRSeg`` on any device, in evaluation mode; on "meta" counting takes no time and no memory.
        num_classes: T.
        num_kept: K; ``None``: the model's own. Exactly K are kept, whatever CRM's minimum score.
        size: S.
    """
    images = torch.empty(1, 3, size, size, device=model.device)
    text = torch.empty(num_classes, model.encoder.embedding_dim, device=model.device)
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), model.evaluating(), fixed_number(model), repeated_guidance(model) as repeated, counter:
        model(images, text, num_kept)

    own = [(name, p.numel()) for name, p in model.named_parameters()]
    return NetworkCost(
        parameters=sum(count for _, count in own),
        outside_clip=sum(count for name, count in own if not name.startswith("encoder.")),
        trainable=sum(p.numel() for p in model.parameters() if p.requires_grad),
        macs=macs_by_part(counter, model),
        repeated_guidance_macs=sum(repeated),
    )


def macs_by_part(counter: FlopCounterMode, model: ERRSeg) -> dict[str, int]:
    """Return the multiply-adds that were counted in each part of a network, in the order of the forward pass."""
    counts = {name: sum(flops.values()) // 2 for name, flops in counter.get_flop_counts().items()}
    parts = {"encoder": "ERRSeg.encoder", **{name: f"ERRSeg.head.{name}" for name, _ in model.head.named_children()}}
    macs = {name: counts[module] for name, module in parts.items() if module in counts}
    # cost maps are not counted in a sub-module of their own, since they have no parameters
    macs["other"] = counts.get("Global", 0) - sum(macs.values())
    return {name: count for name, count in macs.items() if count}


@contextmanager
def fixed_number(model: ERRSeg) -> Iterator[None]:
    """While the model runs, keep exactly K classes instead of as many as an image needs."""
    crm = model.head.crm
    min_score, crm.min_score = crm.min_score, 0.0
    try:
        yield
    finally:
        crm.min_score = min_score


@contextmanager
def repeated_guidance(model: nn.Module) -> Iterator[list[int]]:
    """While the model runs, collect the multiply-adds saved by sharing guidance between sequences or maps."""
    saved: list[int] = []

    def count(module: nn.Module, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        x, guidance = inputs
        assert isinstance(module, GuidedLinear | GuidedConv2d)
        weight = module.weight[:, module.dim :]
        outputs = output.shape[:-1].numel() if isinstance(module, GuidedLinear) else output[:, 0].numel()
        sharers = output.shape[1] if isinstance(module, GuidedLinear) else x.shape[0] // guidance.shape[0]
        saved.append(weight.numel() * outputs * (sharers - 1) // sharers)

    guided = [module for module in model.modules() if isinstance(module, GuidedLinear | GuidedConv2d)]
    handles = [module.register_forward_hook(count) for module in guided]
    try:
        yield saved
    finally:
        for handle in handles:
            handle.remove()
