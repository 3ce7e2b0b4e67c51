"""What SFM, CFM and GUD share: guided projections, one attention, one MLP, one initialisation.

A *guided* projection acts on the concatenation ``[x; guidance]``, where the N sequences (or maps) of an image share
one guidance. A projection of a concatenation is the sum of two projections, so the guidance's part is computed once per
image instead of N times, and the concatenation is never written to memory. Parameters and results are those of the
plain layer on the concatenated input.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from err_seg.modeling.cpu import Linear, linear

NORM_EPS = 1e-5
# not F.interpolate, which resizes in another way when deterministic algorithms are asked for
RESIZERS = {"bilinear": torch.ops.aten.upsample_bilinear2d, "bicubic": torch.ops.aten.upsample_bicubic2d}


class GuidedLinear(nn.Linear):
    """A linear layer on ``[x; guidance]``; the N sequences of an image share the guidance."""

    def __init__(self, dim: int, guidance_dim: int, out_dim: int):
        super().__init__(dim + guidance_dim, out_dim)
        self.dim = dim

    def forward(self, x: Tensor, guidance: Tensor) -> Tensor:  # type: ignore[override]
        """Project x (B, N, L, C) and guidance (B, 1, L, G) to (B, N, L, out_dim)."""
        weight_x, weight_guidance = self.weight.tensor_split((self.dim,), dim=1)
        return linear(x, weight_x) + linear(guidance, weight_guidance, self.bias)


class GuidedConv2d(nn.Conv2d):
    """A convolution of ``[x; guidance]``; the N maps of an image share the guidance."""

    def __init__(self, dim: int, guidance_dim: int, out_dim: int, kernel_size: int, **options: Any):
        super().__init__(dim + guidance_dim, out_dim, kernel_size, **options)
        self.dim = dim

    def forward(self, x: Tensor, guidance: Tensor) -> Tensor:  # type: ignore[override]
        """Convolve x (B·N, C, H, W), image-major, and guidance (B, G, H, W) to (B·N, out_dim, H', W')."""
        weight_x, weight_guidance = self.weight.tensor_split((self.dim,), dim=1)
        own = self._conv_forward(x, weight_x, None)
        shared = self._conv_forward(guidance, weight_guidance, self.bias)
        return (own.unflatten(0, (guidance.shape[0], -1)) + shared.unsqueeze(1)).flatten(0, 1)


class SSR(nn.Module):
    """Spatial sequence reduction (paper, SFM; Table X): keys and values at 1/r of the resolution.

    With n the tokens and g the guidance: k from LN(Conv r×r([n; g])), v from LN(Conv r×r(n)).

    Args:
        dim: channels C of the tokens.
        guidance_dim: channels G of the guidance.
        ratio: r; both convolutions are r×r with stride r, so the grid's sides must be multiples of r.
    """

    def __init__(self, dim: int, guidance_dim: int, ratio: int):
        super().__init__()
        self.conv_k = GuidedConv2d(dim, guidance_dim, dim + guidance_dim, ratio, stride=ratio)
        self.norm_k = nn.LayerNorm(dim + guidance_dim, eps=NORM_EPS)
        self.conv_v = nn.Conv2d(dim, dim, ratio, stride=ratio)
        self.norm_v = nn.LayerNorm(dim, eps=NORM_EPS)

    def forward(self, x: Tensor, guidance: Tensor, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Reduce x (B, N, HW, C) and guidance (B, 1, HW, G) to what k (B, N, HW/r², C+G) and v (.., C) come from."""
        maps, guidance_map = (t.flatten(0, 1).transpose(1, 2).unflatten(2, grid) for t in (x, guidance))  # ·×C×H×W
        keys = self.conv_k(maps, guidance_map).flatten(2).transpose(1, 2)
        values = self.conv_v(maps).flatten(2).transpose(1, 2)
        return self.norm_k(keys).unflatten(0, x.shape[:2]), self.norm_v(values).unflatten(0, x.shape[:2])


class GuidedAttention(nn.Module):
    """Multi-head attention (paper, SFM and CFM): softmax(q kᵀ / √d) v, q and k from ``[x; guidance]``, v from x.

    Args:
        dim: channels C of the tokens.
        guidance_dim: channels G of the guidance.
        num_heads: number of heads; the scale is 1/sqrt(C / num_heads).
        reduction: SSR's ratio r for keys and values, 1 for none.
    """

    def __init__(self, dim: int, guidance_dim: int, num_heads: int, reduction: int = 1):
        super().__init__()
        self.num_heads = num_heads
        self.ssr = SSR(dim, guidance_dim, reduction) if reduction > 1 else None
        self.q = GuidedLinear(dim, guidance_dim, dim)
        self.k = Linear(dim + guidance_dim, dim) if self.ssr else GuidedLinear(dim, guidance_dim, dim)
        self.v = Linear(dim, dim)
        self.proj = Linear(dim, dim)

    def forward(self, x: Tensor, guidance: Tensor, grid: tuple[int, int]) -> Tensor:
        """Attend within each of the N sequences of an image.

        Args:
            x: (B, N, L, C) tokens.
            guidance: (B, 1, L, G), shared by the N sequences.
            grid: (H, W) with H·W = L, for SSR; not read without SSR.

        Returns:
            (B, N, L, C).
        """
        q = self.q(x, guidance)
        if self.ssr is not None:
            key_tokens, value_tokens = self.ssr(x, guidance, grid)
            k, v = self.k(key_tokens), self.v(value_tokens)
        else:
            k, v = self.k(x, guidance), self.v(x)
        q, k, v = (t.flatten(0, 1).unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for t in (q, k, v))
        attended = F.scaled_dot_product_attention(q, k, v)  # B·N×heads×L×C/heads
        return self.proj(attended.transpose(1, 2).flatten(2)).view_as(x)


class MLP(nn.Module):
    """The hidden layers of SFM's and CFM's MLP (paper, "star operation"; Table IX).

    Star: W3(ReLU6(W1 x) ∘ W2 x). Plain (the ablation): W3 ReLU6(W1 x).
    """

    def __init__(self, dim: int, hidden_dim: int, *, star: bool = True):
        super().__init__()
        self.fc1 = Linear(dim, hidden_dim)
        self.fc2 = Linear(dim, hidden_dim) if star else None
        self.fc3 = Linear(hidden_dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens (..., C) to (..., C)."""
        hidden = F.relu6(self.fc1(x), inplace=not torch.is_grad_enabled())
        if self.fc2 is not None:
            hidden = hidden * self.fc2(x)
        return self.fc3(hidden)


class ConvReLU6(nn.Sequential):
    """3×3 convolution and ReLU6, by which every guidance map is projected."""

    def __init__(self, in_dim: int, out_dim: int):
        super().__init__(nn.Conv2d(in_dim, out_dim, 3, padding=1), nn.ReLU6())


def resize(
    maps: Tensor, size: tuple[int, int] | torch.Size, *, align_corners: bool = False, mode: str = "bilinear"
) -> Tensor:
    """Resize maps (N, C, h, w) bilinearly (or by ``mode`` "bicubic"), without antialiasing, to (N, C, *size)."""
    if maps.shape[-2:] == torch.Size(size):
        return maps
    if torch.are_deterministic_algorithms_enabled() and not maps.is_cpu:
        return DeterministicResize.apply(maps, tuple(size), align_corners, mode)
    return F.interpolate(maps, size=tuple(size), mode=mode, align_corners=align_corners)


def resized_part(maps: Tensor, size: tuple[int, int], rows: slice, columns: slice) -> Tensor:
    """Make a part of what :func:`resize` would make, up to rounding, in the time and memory of that part.

    Args:
        maps: (C, h, w), of any type.
        size: (H, W) that they are resized to.
        rows, columns: the part, within ``size``.

    Returns:
        (C, number of rows, number of columns) float32.
    """
    steps = []
    for axis, length, part in ((1, size[0], rows), (2, size[1], columns)):
        last = maps.shape[axis] - 1
        places = (torch.arange(part.start, part.stop, dtype=torch.float64) + 0.5) * ((last + 1) / length) - 0.5
        places = places.clamp(0, last)
        low = places.long()
        first = int(low[0])
        maps = maps.narrow(axis, first, min(int(low[-1]) + 1, last) + 1 - first)
        steps.append((axis, low - first, (places - low).float().view(-1, *[1] * (2 - axis))))
    for axis, low, weight in steps:
        indices = (low, (low + 1).clamp(max=maps.shape[axis] - 1))
        before, after = (maps.index_select(axis, index.to(maps.device)).float() for index in indices)
        maps = torch.lerp(before, after, weight.to(maps.device))
    return maps


class DeterministicResize(torch.autograd.Function):
    """The same as :func:`resize`, with its own backward pass, since torch's adds in any order on CUDA.

    Resizing is a product with one matrix for rows and one for columns; the gradient goes through their transposes.
    """

    @staticmethod
    def forward(ctx: Any, maps: Tensor, size: tuple[int, int], align_corners: bool, mode: str) -> Tensor:
        """Resize exactly as torch does, to the last bit."""
        ctx.size, ctx.options = maps.shape[-2:], (align_corners, mode)
        return RESIZERS[mode](maps, size, align_corners)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        """Map the gradient (N, C, H, W) of the result to that of the maps, at their own size."""
        align_corners, mode = ctx.options
        rows, columns = (
            RESIZERS[mode](torch.eye(n, device=gradient.device).view(1, n, n, 1), (m, 1), align_corners)[0, :, :, 0]
            for n, m in zip(ctx.size, gradient.shape[-2:], strict=True)
        )  # h×H and w×W
        return rows.to(gradient.dtype) @ gradient @ columns.to(gradient.dtype).T, None, None, None


def init_fusion_weights(module: nn.Module) -> None:
    """Initialise one layer of SFM or CFM (for ``nn.Module.apply``).

    Linear: truncated normal (std 0.02); convolution: normal with std sqrt(2 / fan-out); norm: 1; every bias 0.
    """
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
    elif isinstance(module, nn.Conv2d):
        fan_out = math.prod(module.kernel_size) * module.out_channels // module.groups
        nn.init.normal_(module.weight, std=math.sqrt(2 / fan_out))
    elif isinstance(module, nn.LayerNorm):
        nn.init.ones_(module.weight)
    else:
        return
    if module.bias is not None:
        nn.init.zeros_(module.bias)
