"""GUD, the gradual upsampling decoder: from the stride-16 grid to S/4 under the guidance of CLIP's shallow features."""

from collections.abc import Iterable, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from err_seg.modeling.cpu import PerClass
from err_seg.modeling.layers import NORM_EPS, ConvReLU6, GuidedConv2d, resize

CHANNELS_PER_GROUP = 8


class UpsamplingStage(nn.Module):
    """One stage of GUD (paper, GUD; Table XI): upsample, then fuse with one guidance map by two convolutions.

    GroupNorm and ReLU follow each convolution.

    Args:
        in_dim, out_dim: channels of the class maps; ``out_dim`` is a multiple of 8.
        feature_dim: channels of the CLIP feature map.
        guidance_dim: channels that the feature map is projected to; 0 leaves the guidance out (Table XI).
        scale: 2 for a transposed 2×2 convolution with stride 2, 1 for a 1×1 convolution.
        kernel_size: odd size of the two convolutions (Table XI).
        stop_gradient: whether the feature map is detached (Table XI).
    """

    def __init__(
        self,
        *,
        in_dim: int,
        out_dim: int,
        feature_dim: int,
        guidance_dim: int,
        scale: int,
        kernel_size: int = 3,
        stop_gradient: bool = True,
    ):
        super().__init__()
        options: dict[str, Any] = {"kernel_size": kernel_size, "padding": kernel_size // 2, "bias": False}
        self.stop_gradient = stop_gradient
        self.up: nn.Module = (
            nn.ConvTranspose2d(in_dim, out_dim, scale, stride=scale) if scale > 1 else nn.Conv2d(in_dim, out_dim, 1)
        )
        self.guidance = ConvReLU6(feature_dim, guidance_dim) if guidance_dim > 0 else None
        self.conv1: nn.Module = (
            GuidedConv2d(out_dim, guidance_dim, out_dim, **options)
            if guidance_dim > 0
            else nn.Conv2d(out_dim, out_dim, **options)
        )
        self.norm1 = nn.GroupNorm(out_dim // CHANNELS_PER_GROUP, out_dim, eps=NORM_EPS)
        self.conv2 = nn.Conv2d(out_dim, out_dim, **options)
        self.norm2 = nn.GroupNorm(out_dim // CHANNELS_PER_GROUP, out_dim, eps=NORM_EPS)

    def project(self, feature: Tensor) -> Tensor | None:
        """Project a feature map (B, feature_dim, h, w) to the guidance (B, guidance_dim, h, w), if there is any."""
        return self.guidance(feature.detach() if self.stop_gradient else feature) if self.guidance else None

    def forward(self, x: Tensor, guidance: Tensor | None) -> Tensor:
        """Upsample x (B·K, in_dim, h, w) with guidance (B, guidance_dim, h', w') to (B·K, out_dim, h', w')."""
        x = self.up(x)
        x = self.conv1(x) if guidance is None else self.conv1(x, guidance)
        in_place = not torch.is_grad_enabled()
        x = F.relu(self.norm1(x), inplace=in_place)
        return F.relu(self.norm2(self.conv2(x)), inplace=in_place)


class GUD(PerClass):
    """Gradual upsampling decoder (paper, "Gradual Upsampling Decoder"; Tables V and XI).

    Stages at strides 16, 8 and 4, then one logit per pixel.

    Args:
        stages: the stages in order; with none (Table V, without GUD) the last layer is applied to X itself.
        dim: channels of the last stage's output; of X if there are no stages.
    """

    def __init__(self, *, stages: Sequence[UpsamplingStage], dim: int):
        super().__init__()
        self.stages = nn.ModuleList(stages)
        self.head = nn.Conv2d(dim, 1, 1)

    def forward(self, x: Tensor, features: Sequence[Tensor]) -> Tensor:
        """Decode x (B·K, C, H, W) with one feature map per stage (F3, F2, F1), or none, to logits (B·K, 1, 4H, 4W)."""
        stages = cast(Iterable[UpsamplingStage], self.stages)
        guidance = [stage.project(feature) for stage, feature in zip(stages, features, strict=False)]
        maps = x.unflatten(0, (features[0].shape[0] if features else 1, -1))  # B×K×C×H×W
        batch, _, _, h, w = maps.shape
        return self.few_at_a_time(lambda some: self.decode(some, guidance), maps, places=batch * h * w).flatten(0, 1)

    def decode(self, maps: Tensor, guidance: Sequence[Tensor | None]) -> Tensor:
        """Decode the maps of some classes (B, n, C, H, W) to logits (B, n, 1, 4H, 4W)."""
        x = maps.flatten(0, 1)
        for i, stage in enumerate(self.stages):
            x = stage(x, guidance[i] if guidance else None)
        return resize(self.head(x), (4 * maps.shape[3], 4 * maps.shape[4])).unflatten(0, maps.shape[:2])
