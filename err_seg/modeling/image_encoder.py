"""CLIP's image tower read densely: feature maps F1..F4 and an embedding for every pixel, with HSM's second branch."""

from typing import Any, NamedTuple

import torch
from timm.layers import LayerNorm2d
from torch import Tensor, nn
from torch.nn import functional as F

from err_seg.modeling.clip import OpenCLIP, embed_prompts
from err_seg.modeling.layers import resize

GUIDANCE_BOUND = 16.0


class Features(NamedTuple):
    """What the image tower hands to the rest of the network.

    embeddings: CLIP embeddings of every pixel, (B, D, h, w), the map that CRM and the grid follow first: (E16, E32)
        with HSM, (E32,) without, (E16,) of a ViT.
    deep: guidance maps for ESCF, deepest first: (F4, F3), or a ViT's last map; within ±16.
    shallow: guidance maps for GUD's stages: (F3, F2, F1), or none; within ±16.
    """

    embeddings: tuple[Tensor, ...]
    deep: tuple[Tensor, ...]
    shallow: tuple[Tensor, ...]


class CLIPEncoder(nn.Module):
    """A CLIP whose text tower embeds prompts and whose image tower, in the subclasses, is read densely.

    Args:
        clip: open_clip's CLIP.
    """

    clip: OpenCLIP
    deep_dims: tuple[int, ...]
    shallow_dims: tuple[int, ...]

    def __init__(self, clip: OpenCLIP):
        super().__init__()
        self.clip = clip

    @property
    def embedding_dim(self) -> int:
        """D, the size of CLIP's joint embeddings."""
        projection = self.clip.text_projection
        return projection.out_features if isinstance(projection, nn.Linear) else projection.shape[1]

    def encode_text(self, tokens: Tensor) -> Tensor:
        """Embed the prompts of T classes, (T, P, L) tokens, to unit vectors (T, D)."""
        return embed_prompts(self.clip, tokens)


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

    def __init__(self, clip: OpenCLIP, *, hsm: bool = True, stage4_gradient: str = "both"):
        super().__init__(clip)
        stages = clip.visual.trunk.stages
        self.hsm = HSMBranch(stages[3].downsample) if hsm else None
        self.stage4_gradient = stage4_gradient
        dims = [info["num_chs"] for info in clip.visual.trunk.feature_info]
        self.deep_dims = (dims[3], dims[2])
        self.shallow_dims = (dims[2], dims[1], dims[0])

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


class ViTEncoder(CLIPEncoder):
    """ViT-CLIP for Table XII: one stride-16 map, no middle features, hence no HSM and no guidance for GUD.

    In the last block every token keeps to itself (its own value instead of an average over all): this is what makes
    the patch tokens comparable with text (MaskCLIP, Zhou et al. 2022).

    Args:
        clip: open_clip's CLIP with its own VisionTransformer.
    """

    def __init__(self, clip: OpenCLIP):
        super().__init__(clip)
        self.deep_dims = (clip.visual.transformer.width,)
        self.shallow_dims = ()

    def forward(self, images: Tensor) -> Features:
        """Encode normalised pictures (B, 3, S, S), S a multiple of the patch size."""
        visual = self.clip.visual
        patches = visual.conv1(images)  # B×C×h×w
        grid = patches.shape[-2:]
        tokens = patches.flatten(2).transpose(1, 2)
        class_token = visual.class_embedding.to(tokens.dtype).expand(len(tokens), 1, -1)
        tokens = torch.cat([class_token, tokens], dim=1) + self.positions(grid).to(tokens.dtype)
        tokens = visual.ln_pre(tokens)
        *blocks, last = visual.transformer.resblocks
        for block in blocks:
            tokens = block(tokens)
        tokens = self.value_path(last, tokens)[:, 1:]
        embeddings = visual.ln_post(tokens) @ visual.proj
        embeddings, tokens = (t.transpose(1, 2).unflatten(2, grid) for t in (embeddings, tokens))
        return Features((embeddings,), deep=(tokens.clamp(-GUIDANCE_BOUND, GUIDANCE_BOUND),), shallow=())

    def positions(self, grid: torch.Size) -> Tensor:
        """Resize the positional embedding (class token first) to a grid (h, w): (1 + h·w, C)."""
        class_position, positions = self.clip.visual.positional_embedding.split(
            [1, len(self.clip.visual.positional_embedding) - 1]
        )
        maps = positions.T.unflatten(1, self.clip.visual.grid_size).unsqueeze(0)
        maps = resize(maps, grid, mode="bicubic")
        return torch.cat([class_position, maps[0].flatten(1).T])

    @staticmethod
    def value_path(block: Any, tokens: Tensor) -> Tensor:
        """Run a block with each token attending to itself alone."""
        attention = block.attn
        values = F.linear(block.ln_1(tokens), attention.in_proj_weight.chunk(3)[2], attention.in_proj_bias.chunk(3)[2])
        tokens = tokens + block.ls_1(attention.out_proj(values))
        return tokens + block.ls_2(block.mlp(block.ln_2(tokens)))
