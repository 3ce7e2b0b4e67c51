"""ConvNeXt-CLIP."""

import re
from typing import Any

from timm.layers import LayerNorm2d
from timm.models.convnext import ConvNeXt
from torch import Tensor, nn

from err_seg.modeling.clip import OpenCLIP
from err_seg.modeling.hierarchical import HierarchicalEncoder
from err_seg.modeling.layers import resize


class HSMBranch(nn.Module):
    """Stage 4's input at stride 16: stage 4's own downsampling with stride 1 (paper, HSM).

    Args:
        downsample: the trunk's stage-4 downsampling, LayerNorm2d and 2×2 convolution with stride 2; copied.
    """

    def __init__(self, downsample: Any):
        super().__init__()
        norm, conv = downsample
        out_dim, in_dim = conv.weight.shape[:2]
        self.norm = LayerNorm2d(in_dim, eps=norm.eps)
        self.conv = nn.Conv2d(in_dim, out_dim, 2, padding=1)
        for mine, theirs in zip((self.norm, self.conv), downsample, strict=True):
            mine.load_state_dict(theirs.state_dict())

    def forward(self, f3: Tensor) -> Tensor:
        """Map F3 (B, C3, H, W) to (B, C4, H, W)."""
        return resize(self.conv(self.norm(f3)), f3.shape[-2:])


class ConvNeXtEncoder(HierarchicalEncoder):
    """ConvNeXt-CLIP, from base to XXL (paper, image encoder; Table II): a timm ConvNeXt with open_clip's head."""

    # layer scales, depthwise convolutions and MLPs
    image_weights = re.compile(r"\.gamma$|\.(conv_dw|mlp\.fc\d)\.weight$")

    @classmethod
    def reads(cls, clip: OpenCLIP) -> bool:
        """Whether the image tower is a timm ConvNeXt."""
        return isinstance(getattr(clip.visual, "trunk", None), ConvNeXt)

    def hsm_branch(self) -> nn.Module:
        """Copy stage 4's downsampling with stride 1."""
        return HSMBranch(self.clip.visual.trunk.stages[3].downsample)

    def project(self, f4: Tensor) -> Tensor:
        """Apply CLIP's head to every pixel: (B, C4, h, w) to (B, D, h, w)."""
        pixels = self.clip.visual.trunk.head.norm(f4).permute(0, 2, 3, 1)
        return self.clip.visual.head(pixels).permute(0, 3, 1, 2)
