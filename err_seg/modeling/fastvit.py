"""FastViT-CLIP: the image towers of MobileCLIP and MobileCLIP2 (S0 to S4), for real time."""

import copy
import re

from timm.models.fastvit import FastVit
from torch import Tensor, nn

from err_seg.modeling.clip import OpenCLIP
from err_seg.modeling.hierarchical import HierarchicalEncoder


class FastViTEncoder(HierarchicalEncoder):
    """FastViT-CLIP: a timm FastViT with four stages (S0, S1, S2) or five (S3, S4); its own head is the projection.

    Batch norms keep the statistics that CLIP was trained with, even in training: those of a few images are noisy, and
    would make an image's result depend on its batch. Their weights train only with the strategy ``"full"``.
    """

    # in the blocks: layer scales, depthwise convolutions (token mixers and in MLPs), MLPs, and attention inputs
    image_weights = re.compile(
        r"\.blocks\.\d+\.(.+\.gamma|mlp\.(conv\.conv|fc\d)\.weight|token_mixer\.(mixer\.conv_.+\.conv|qkv)\.weight)$"
    )

    @classmethod
    def reads(cls, clip: OpenCLIP) -> bool:
        """Whether the image tower is a timm FastViT that ends in average pooling and a linear projection."""
        trunk = getattr(clip.visual, "trunk", None)
        return isinstance(trunk, FastVit) and trunk.global_pool == "avg" and isinstance(trunk.head.fc, nn.Linear)

    def train(self, mode: bool = True) -> "FastViTEncoder":
        """Set the mode; batch norms always stay in evaluation mode."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        return self

    def hsm_branch(self) -> nn.Module:
        """Copy stage 4's downsampling, whose padding keeps the size, with stride 1."""
        branch = copy.deepcopy(self.clip.visual.trunk.stages[3].downsample)
        for module in branch.modules():
            if isinstance(module, nn.Conv2d):
                module.stride = (1, 1)
        return branch

    def stage4_parts(self) -> list[nn.Module]:
        """List what stage 4 runs after its downsampling: also its positional encoding."""
        stage = self.clip.visual.trunk.stages[3]
        return [stage.pos_emb, stage.blocks]

    def project(self, f4: Tensor) -> Tensor:
        """Run a fifth stage where there is one, the last convolution, and the projection of every pixel."""
        trunk = self.clip.visual.trunk
        pixels = trunk.final_conv(trunk.stages[4:](f4)).permute(0, 2, 3, 1)
        return trunk.head.fc(pixels).permute(0, 3, 1, 2)
