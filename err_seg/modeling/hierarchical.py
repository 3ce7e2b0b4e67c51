"""Image towers with stages: feature maps F1..F4, an embedding for every pixel, and HSM's second branch."""

from abc import abstractmethod

import torch
from torch import Tensor, nn

from err_seg.modeling.clip import OpenCLIP
from err_seg.modeling.encoder import GUIDANCE_BOUND, CLIPEncoder, FeatureMap, FeatureMaps, Features


class HierarchicalEncoder(CLIPEncoder):
    """A timm trunk with a stem and stages: F1..F4, E32 (CLIP's own output for every pixel), and HSM's E16.

    E16 comes from F3 as E32 does, but with stride 1 in stage 4's downsampling (paper, HSM). If the trunk has a fifth
    stage, both run through it; it halves their resolution, so that they are E32 and E64.

    Args:
        clip: open_clip's CLIP with a trunk whose stages have ``downsample`` and ``blocks``.
        hsm: whether E16 is computed (Table V).
        stage4_gradient: which map trains the stage-4 blocks that both share: ``"both"``, ``"E16"`` or ``"E32"``
            (Table VI).
    """

    is_hierarchical = True

    def __init__(self, clip: OpenCLIP, *, hsm: bool = True, stage4_gradient: str = "both"):
        super().__init__(clip)
        self.hsm = self.hsm_branch() if hsm else None
        self.stage4_gradient = stage4_gradient
        stages = [
            FeatureMap(f"f{i}", info["num_chs"], info["reduction"])
            for i, info in enumerate(clip.visual.trunk.feature_info, start=1)
        ]
        f1, f2, f3, f4 = stages[:4]
        own = stages[-1].stride
        strides = (own // 2, own) if hsm else (own,)
        embeddings = tuple(FeatureMap(f"e{stride}", self.embedding_dim, stride) for stride in strides)
        self.maps = FeatureMaps(embeddings, deep=(f4, f3), shallow=(f3, f2, f1))

    @abstractmethod
    def hsm_branch(self) -> nn.Module:
        """Copy stage 4's downsampling with stride 1: F3 (B, C3, H, W) to (B, C4, H, W)."""

    @abstractmethod
    def project(self, f4: Tensor) -> Tensor:
        """Run everything after stage 4, including CLIP's head, for every pixel: (B, C4, h, w) to (B, D, h', w')."""

    def stage4_parts(self) -> list[nn.Module]:
        """List what stage 4 runs after its downsampling."""
        return [self.clip.visual.trunk.stages[3].blocks]

    def forward(self, images: Tensor) -> Features:
        """Encode normalised images (B, 3, S, S), S a multiple of 32."""
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
        """List the stages' blocks; without stage 4's if these also run with constants in place of weights."""
        stages = list(self.clip.visual.trunk.stages)
        if self.stage4_gradient != "both":
            del stages[3]
        return [block for stage in stages for block in stage.blocks]

    def stage4(self, x: Tensor, branch: str) -> Tensor:
        """Run the shared part of stage 4; only the branches that ``stage4_gradient`` names train it."""
        for part in self.stage4_parts():
            if self.stage4_gradient in ("both", branch):
                x = part(x)
            else:
                constants = {name: parameter.detach() for name, parameter in part.named_parameters()}
                x = torch.func.functional_call(part, constants, (x,))
        return x
