"""ConvNeXt-CLIP: feature maps F1..F4, an embedding for every pixel, and HSM's second branch."""

import re
from typing import Any

import torch
from timm.layers import LayerNorm2d
from torch import Tensor, nn

from err_seg.modeling.clip import OpenCLIP
from err_seg.modeling.encoder import GUIDANCE_BOUND, CLIPEncoder, FeatureMap, FeatureMaps, Features
from err_seg.modeling.layers import resize


class HSMBranch(nn.Module):
    """Stage 4's input at stride 16: stage 4's own downsampling with stride 1 (paper, HSM).

    Args:
        downsample: the trunk's stage-4 downsampling, LayerNorm2d and 2×2 convolution with stride 2, to copy from.
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


class ConvNeXtEncoder(CLIPEncoder):
    """ConvNeXt-CLIP: F1..F4, E32 = CLIP's own output for every pixel, and E16 through HSM's branch.

    Args:
        clip: open_clip's CLIP with a timm ConvNeXt trunk.
        hsm: whether E16 is computed (Table V).
        stage4_gradient: which map trains the stage-4 blocks that both share: ``"both"``, ``"E16"`` or ``"E32"``
            (Table VI).
    """

    is_hierarchical = True
    # layer scales, depthwise convolutions and MLPs
    image_weights = re.compile(r"\.gamma$|\.(conv_dw|mlp\.fc\d)\.weight$")

    def __init__(self, clip: OpenCLIP, *, hsm: bool = True, stage4_gradient: str = "both"):
        super().__init__(clip)
        trunk = clip.visual.trunk
        self.hsm = HSMBranch(trunk.stages[3].downsample) if hsm else None
        self.stage4_gradient = stage4_gradient
        f1, f2, f3, f4 = (
            FeatureMap(f"f{i + 1}", info["num_chs"], info["reduction"]) for i, info in enumerate(trunk.feature_info)
        )
        e16, e32 = FeatureMap("e16", self.embedding_dim, 16), FeatureMap("e32", self.embedding_dim, 32)
        self.maps = FeatureMaps((e16, e32) if hsm else (e32,), deep=(f4, f3), shallow=(f3, f2, f1))

    @classmethod
    def reads(cls, clip: OpenCLIP) -> bool:
        """Whether the image tower is a timm ConvNeXt."""
        return len(getattr(getattr(clip.visual, "trunk", None), "stages", ())) == 4

    def forward(self, images: Tensor) -> Features:
        """Encode normalised pictures (B, 3, S, S), S a multiple of 32."""
        trunk = self.clip.visual.trunk
        f1 = trunk.stages[0](trunk.stem(images))
        f2 = trunk.stages[1](f1)
        f3 = trunk.stages[2](f2)
        f4 = self.stage4(trunk.stages[3].downsample(f3), "E32")
        embeddings: tuple[Tensor, ...] = (self.project(f4),)
        if self.hsm is not None:
            embeddings = (self.project(self.stage4(self.hsm(f3), "E16")), *embeddings)
        f1, f2, f3, f4 = (f.clamp(-GUIDANCE_BOUND, GUIDANCE_BOUND) for f in (f1, f2, f3, f4))
        return Features(embeddings, deep=(f4, f3), shallow=(f3, f2, f1))

    def image_blocks(self) -> list[nn.Module]:
        """List the stages' blocks; stage 4's not where they also run with constants in the weights' place."""
        *stages, last = self.clip.visual.trunk.stages
        blocks = [block for stage in stages for block in stage.blocks]
        return blocks + (list(last.blocks) if self.stage4_gradient == "both" else [])

    def stage4(self, x: Tensor, branch: str) -> Tensor:
        """Run the shared stage-4 blocks; only the branches named by ``stage4_gradient`` train them."""
        blocks = self.clip.visual.trunk.stages[3].blocks
        if self.stage4_gradient in ("both", branch):
            return blocks(x)
        constants = {name: parameter.detach() for name, parameter in blocks.named_parameters()}
        return torch.func.functional_call(blocks, constants, (x,))

    def project(self, f4: Tensor) -> Tensor:
        """Apply CLIP's head to every pixel: (B, C4, h, w) to (B, D, h, w)."""
        pixels = self.clip.visual.trunk.head.norm(f4).permute(0, 2, 3, 1)
        return self.clip.visual.head(pixels).permute(0, 3, 1, 2)
