"""FastViT-CLIP: the image towers of MobileCLIP and MobileCLIP2 (S0 to S4), for real time."""

import copy
import re
from collections.abc import Callable
from typing import Any

import torch
from timm.models.fastvit import FastVit
from timm.utils.model import reparameterize_model
from torch import Tensor, nn

from err_seg.modeling.clip import OpenCLIP
from err_seg.modeling.cpu import is_plain
from err_seg.modeling.encoder import Features
from err_seg.modeling.hierarchical import HierarchicalEncoder
from err_seg.utils.fingerprint import tensor_versions


class FastViTEncoder(HierarchicalEncoder):
    """FastViT-CLIP: a timm FastViT with four stages (S0, S1, S2) or five (S3, S4); its own head is the projection.

    Batch norms keep the statistics that CLIP was trained with, even in training: those of a few images are noisy, and
    would make an image's result depend on its batch. Their weights train only with the strategy ``"full"``.

    Inference runs :meth:`fused`, a copy without the branches that only training needs; parameters and entries of
    checkpoints stay those of the branches.
    """

    # in the blocks: layer scales, depthwise convolutions (token mixers and in MLPs), MLPs, and attention inputs
    image_weights = re.compile(
        r"\.blocks\.\d+\.(.+\.gamma|mlp\.(conv\.conv|fc\d)\.weight|token_mixer\.(mixer\.conv_.+\.conv|qkv)\.weight)$"
    )

    def __init__(self, clip: OpenCLIP, **options: Any):
        super().__init__(clip, **options)
        self.is_fused = False
        self._fused: tuple[Any, FastViTEncoder | None] = (None, None)  # in a tuple, so that it is no submodule
        self._compile: Callable[[nn.Module], None] = lambda fused: None

    def forward(self, images: Tensor) -> Features:
        """Encode normalised images (B, 3, S, S), S a multiple of 32."""
        is_trained = self.training or torch.is_grad_enabled() or not all(map(is_plain, self.parameters()))
        if is_trained:
            self._fused = (None, None)  # fused optimizers write without changing a tensor's version
        if self.is_fused or is_trained or torch.compiler.is_compiling():
            return super().forward(images)
        # channels last, since oneDNN then convolves large maps faster
        return self.fused()(images.contiguous(memory_format=torch.channels_last) if images.is_cpu else images)

    def fused(self) -> "FastViTEncoder":
        """Return a copy whose parallel branches and batch norms are single convolutions, made anew for new weights."""
        (known, fused), state = self._fused, tensor_versions(self)
        if self.is_fused or (fused is not None and known == state):
            return fused or self
        self._fused = (None, None)  # not copied as well
        image_tower = {id(parameter) for parameter in self.clip.visual.parameters()}
        shared = {id(p): p for p in self.clip.parameters() if id(p) not in image_tower}
        fused = copy.deepcopy(self, shared).eval()
        fused.is_fused = True
        fused._forward_hooks.clear()  # those of this module are called
        fused._forward_pre_hooks.clear()
        weight = next(fused.clip.visual.parameters())
        with torch.device(weight.device), torch.random.fork_rng([weight.device] if weight.is_cuda else []):
            for part in filter(None, (fused.clip.visual, fused.hsm)):
                reparameterize_model(part.float(), inplace=True).to(weight.dtype).requires_grad_(False)
        self._compile(fused)
        self._fused = (state, fused)
        return fused

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Compile the copy for inference, now and whenever it is made again."""
        self._compile, self._fused = lambda fused: nn.Module.compile(fused, *args, **kwargs), (None, None)

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
            if hasattr(module, "stride"):  # convolutions, and blocks that make them when they are fused
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
