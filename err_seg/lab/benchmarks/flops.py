"""What a network costs: parameters and multiply-adds, counted without computing anything."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from err_seg.config import Config
from err_seg.modeling.layers import GuidedConv2d, GuidedLinear
from err_seg.models.build import build_model
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


def network_cost(cfg: Config, *, num_classes: int, num_kept: int | None) -> NetworkCost:
    """Count the parameters and multiply-adds of a configuration's network.

    Args:
        cfg: weights do not matter, nor does the device.
        num_classes: T.
        num_kept: K; ``None``: the network's own. Exactly K are kept, whatever CRM's minimum score.
    """
    cfg = cfg.clone()
    cfg.MODEL.DEVICE, cfg.MODEL.WEIGHTS, cfg.MODEL.CLIP.PRETRAINED = "meta", "", ""
    cfg.MODEL.CRM.MIN_SCORE = 0.0
    repeated: list[int] = []
    with torch.device("meta"):
        model = build_model(cfg)
        images = torch.empty(1, 3, cfg.INPUT.SIZE, cfg.INPUT.SIZE)
        text = torch.empty(num_classes, model.encoder.embedding_dim)
    for module in model.modules():
        if isinstance(module, GuidedLinear | GuidedConv2d):
            module.register_forward_hook(lambda *call: repeated.append(repeated_guidance_macs(*call)))
    with torch.no_grad(), model.evaluating(), FlopCounterMode(display=False) as counter:
        model(images, text, num_kept)

    sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
    return NetworkCost(
        parameters=sum(sizes.values()),
        outside_clip=sum(count for name, count in sizes.items() if not name.startswith("encoder.")),
        trainable=sum(p.numel() for p in model.parameters() if p.requires_grad),
        macs=macs_by_part(counter, model),
        repeated_guidance_macs=sum(repeated),
    )


def repeated_guidance_macs(module: GuidedLinear | GuidedConv2d, inputs: tuple[Tensor, Tensor], output: Tensor) -> int:
    """Return the multiply-adds that a call saves by sharing guidance between sequences or maps."""
    x, guidance = inputs
    weight = module.weight[:, module.dim :]
    outputs = output.shape[:-1].numel() if isinstance(module, GuidedLinear) else output[:, 0].numel()
    sharers = output.shape[1] if isinstance(module, GuidedLinear) else x.shape[0] // guidance.shape[0]
    return weight.numel() * outputs * (sharers - 1) // sharers


def macs_by_part(counter: FlopCounterMode, model: ERRSeg) -> dict[str, int]:
    """Return the multiply-adds that were counted in each part of a network, in the order of the forward pass."""
    counts = {name: sum(flops.values()) // 2 for name, flops in counter.get_flop_counts().items()}
    parts = {"encoder": "ERRSeg.encoder", **{name: f"ERRSeg.head.{name}" for name, _ in model.head.named_children()}}
    macs = {name: counts[module] for name, module in parts.items() if module in counts}
    # cost maps are not counted in a sub-module of their own, since they have no parameters
    macs["other"] = counts.get("Global", 0) - sum(macs.values())
    return {name: count for name, count in macs.items() if count}
