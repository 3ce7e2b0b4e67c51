"""Inference on a CPU: linear layers by the faster kernel, and large maps a few at a time."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def is_cpu_inference(x: Tensor) -> bool:
    """Whether ``x`` is computed on a CPU now, without gradients and not for a compiled or exported graph."""
    return x.is_cpu and not torch.is_grad_enabled() and not torch.compiler.is_compiling()


def is_plain(tensor: Tensor) -> bool:
    """Whether a parameter (or a part of one) is neither sharded nor quantised, nor of another special kind."""
    return type(tensor) in (Tensor, nn.Parameter)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Compute ``F.linear``; in fp32 inference on a CPU as a 1×1 convolution of the pixels x (..., C).

    That is oneDNN's, which adds the bias on the way and is faster on AMD processors than MKL's matrix product.
    """
    is_fp32 = x.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
    if not (is_cpu_inference(x) and is_fp32 and is_plain(weight) and x.numel()):
        return F.linear(x, weight, bias)
    pixels = x.contiguous().view(1, -1, 1, x.shape[-1]).permute(0, 3, 1, 2)  # 1×C×N×1, channels last
    return F.conv2d(pixels, weight[:, :, None, None], bias).permute(0, 2, 3, 1).reshape(*x.shape[:-1], len(weight))


class Linear(nn.Linear):
    """``nn.Linear`` by :func:`linear`."""

    def forward(self, input: Tensor) -> Tensor:
        """Map (..., C) to (..., out_features)."""
        return linear(input, self.weight, self.bias)


class PerClass(nn.Module):
    """A module that treats every class (or every place) by itself, a few at a time in inference on a CPU.

    What it computes in between then fits in the cache, and below the size that glibc maps and unmaps at every use.
    """

    places_at_a_time = 12800  # tokens: those of 8 class maps at stride 16 of an input of 640×640

    def few_at_a_time(self, function: Callable[..., Tensor], *maps: Tensor, places: int) -> Tensor:
        """Apply a function of tensors (B, n, ...), for any n, to maps (B, N, ...); an index of N has so many places."""
        if not is_cpu_inference(maps[0]):  # first, since an exported graph leaves the sizes open
            return function(*maps)
        size = max(1, self.places_at_a_time // places)
        parts = [function(*part) for part in zip(*(tensor.split(size, dim=1) for tensor in maps), strict=True)]
        return torch.cat(parts, dim=1) if len(parts) > 1 else parts[0]
