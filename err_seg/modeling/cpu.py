"""Inference on a CPU: linear layers by the faster kernel, and large maps a few at a time."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def is_cpu_inference(x: Tensor) -> bool:
    """Whether ``x`` is computed on a CPU now, without gradients and not for a compiled or exported graph."""
    return x.is_cpu and not torch.is_grad_enabled() and not torch.compiler.is_compiling()


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Compute ``F.linear``; in fp32 inference on a CPU as a 1×1 convolution of the pixels x (..., C).

    Torch has the matrix product from MKL, and writes the bias in a pass of its own; oneDNN's convolution adds it on the
    way, and is the faster of the two on processors that MKL does not favour.
    """
    is_fp32 = x.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
    if not (is_cpu_inference(x) and is_fp32 and x.numel()):
        return F.linear(x, weight, bias)
    pixels = x.contiguous().view(1, -1, 1, x.shape[-1]).permute(0, 3, 1, 2)  # 1×C×N×1, channels last
    return F.conv2d(pixels, weight[:, :, None, None], bias).permute(0, 2, 3, 1).reshape(*x.shape[:-1], len(weight))


class Linear(nn.Linear):
    """``nn.Linear`` by :func:`linear`."""

    def forward(self, input: Tensor) -> Tensor:
        """Map (..., C) to (..., out_features)."""
        return linear(input, self.weight, self.bias)


def compute_linear_layers_by_convolution(network: nn.Module) -> None:
    """Make each ``nn.Linear`` of a network a :class:`Linear`, in place; parameters stay what they are."""
    for module in network.modules():
        if type(module) is nn.Linear:
            module.__class__ = Linear


class PerClass(nn.Module):
    """A module that treats every class (or every place) by itself, and so can pass them a few at a time.

    In inference on a CPU it does. What it computes in between is then small enough for the processor's cache, and for
    the C library to use the same memory again: glibc maps and unmaps every allocation of 32 MiB or more, at the cost of
    a page fault for each 4 KiB.
    """

    places_at_a_time = 12800
    """How many tokens at a time: those of 8 class maps at stride 16 of an input of 640×640."""

    def few_at_a_time(self, function: Callable[..., Tensor], *maps: Tensor, places: int) -> Tensor:
        """Apply a function to a few indices of the second axis at a time.

        Args:
            function: maps tensors (B, n, ...) to a tensor (B, n, ...), for any n.
            maps: (B, N, ...) each.
            places: how many tokens an index has.

        Returns:
            (B, N, ...).
        """
        if not is_cpu_inference(maps[0]):  # first, since an exported graph leaves the sizes open
            return function(*maps)
        size = max(1, self.places_at_a_time // places)
        parts = zip(*(tensor.split(size, dim=1) for tensor in maps), strict=True)
        return torch.cat([function(*part) for part in parts], dim=1)
