"""What a machine can do at most, and what a computation asks of it: arithmetic, memory traffic, parameters."""

import math
import platform
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode, flop_registry, shape_wrapper

from err_seg.config import Config
from err_seg.modeling.layers import GuidedConv2d, GuidedLinear
from err_seg.models.build import build_model
from err_seg.prediction.model import ERRSeg
from err_seg.utils.device import PRECISIONS, tf32

ROUNDS = 5
GEMM_SIDE = {"cpu": 3072, "cuda": 8192}
COPIED_BYTES = 2**28


@dataclass(frozen=True)
class Machine:
    """The limits of a device.

    Attributes:
        name: processor or GPU, and threads.
        flops: by precision, operations a second in a large matrix product (two for a multiply-add).
        bandwidth: bytes a second, read and written, in a large copy.
    """

    name: str
    flops: dict[str, float]
    bandwidth: float

    def seconds_needed(self, operations: Iterable[tuple[int, int]], precision: str) -> float:
        """Sum over operations, (FLOP, bytes) each, the time that arithmetic or memory takes, whichever is longer.

        This is the roofline model, operation by operation. Operands that stay in a cache arrive faster.
        """
        rate = self.flops[precision]
        return sum(max(flops / rate, moved / self.bandwidth) for flops, moved in operations)


def measure_machine(device: torch.device, precisions: Sequence[str]) -> Machine:
    """Measure a device's limits with a matrix product in each precision and a copy."""
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    else:
        name = f"{platform.processor() or platform.machine()} {device.type}, {torch.get_num_threads()} threads"
    side = GEMM_SIDE.get(device.type, GEMM_SIDE["cpu"])
    flops = {}
    for precision in dict.fromkeys(precisions):
        a, b = torch.randn(2, side, side, device=device).to(PRECISIONS[precision] or torch.float32)
        pixels, weight = a.view(1, 1, side, side).permute(0, 3, 1, 2), b[:, :, None, None]  # another library's product
        with tf32(False):
            products = (partial(torch.mm, a, b), partial(F.conv2d, pixels, weight))
            seconds = min(best_seconds(product, device) for product in products)
        flops[precision] = 2 * side**3 / seconds
    source = torch.ones(COPIED_BYTES, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    copy = best_seconds(lambda: target.copy_(source), device)
    return Machine(name, flops, 2 * COPIED_BYTES / copy)


def best_seconds(work: Callable[[], object], device: torch.device) -> float:
    """Return the shortest of a few times, after one to warm up."""
    work()
    return min(timed(work, device) for _ in range(ROUNDS))


def timed(work: Callable[[], object], device: torch.device) -> float:
    """Do something once, wait for the device, and return the seconds that both took."""
    synchronize(device)
    start = time.perf_counter()
    work()
    synchronize(device)
    return time.perf_counter() - start


def synchronize(device: torch.device) -> None:
    """Wait until a device has done all work."""
    if device.type in ("cuda", "mps"):
        getattr(torch, device.type).synchronize()


def convolution_backward_flops(
    gradient: Sequence[int], x: Sequence[int], weight: Sequence[int], *rest: Any, **_: Any
) -> int:
    """Count a convolution's backward pass from shapes: that of x and that of the weight each cost what forward costs.

    Torch's own count takes no account of groups, so it is C times too high for the weight of a depthwise convolution.
    """
    transposed, output_mask = rest[4], rest[7]
    places = x if transposed else gradient
    return 2 * places[0] * math.prod(places[2:]) * math.prod(weight) * sum(output_mask[:2])


FLOP_COUNTS = {**flop_registry, torch.ops.aten.convolution_backward: shape_wrapper(convolution_backward_flops)}


class Operations(TorchDispatchMode):
    """While active, notes of every operation of torch how many FLOP it is and how many bytes it reads and writes.

    Views move nothing and are left out. Matrix products, convolutions and attention count as FLOP, as everywhere.
    """

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[int, int]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operation and note it."""
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if not func.is_view:
            count = FLOP_COUNTS.get(func._overloadpacket)
            moved = sum(leaf.nbytes for leaf in tree_leaves((args, kwargs, result)) if isinstance(leaf, Tensor))
            self.seen.append((count(*args, **kwargs, out_val=result) if count else 0, moved))
        return result


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
