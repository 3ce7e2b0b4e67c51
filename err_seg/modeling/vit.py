"""ViT-CLIP, for Table XII: one map at stride 16."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from err_seg.modeling.clip import OpenCLIP
from err_seg.modeling.encoder import GUIDANCE_BOUND, TRANSFORMER_WEIGHTS, CLIPEncoder, FeatureMap, FeatureMaps, Features
from err_seg.modeling.layers import resize


class ViTEncoder(CLIPEncoder):
    """ViT-CLIP for Table XII: one stride-16 map and no intermediate features, hence no HSM and no guidance for GUD.

    In the last block every token attends only to itself (it takes its own value instead of an average over all values).
    This makes the patch tokens comparable with text (MaskCLIP, Zhou et al. 2022).
    """

    is_hierarchical = False
    image_weights = TRANSFORMER_WEIGHTS

    def __init__(self, clip: OpenCLIP):
        super().__init__(clip)
        stride = clip.visual.patch_size[0]
        tokens = FeatureMap("f4", clip.visual.transformer.width, stride)
        self.maps = FeatureMaps((FeatureMap("e16", self.embedding_dim, stride),), deep=(tokens,), shallow=())

    @classmethod
    def reads(cls, clip: OpenCLIP) -> bool:
        """Whether the image tower is open_clip's own VisionTransformer."""
        return hasattr(clip.visual, "conv1") and hasattr(clip.visual, "ln_pre")

    def image_blocks(self) -> list[nn.Module]:
        """List the transformer's blocks except the last one, which is run in pieces."""
        return list(self.clip.visual.transformer.resblocks)[:-1]

    def forward(self, images: Tensor) -> Features:
        """Encode normalised images (B, 3, S, S), S a multiple of the patch size."""
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
        embedding = self.clip.visual.positional_embedding
        class_position, positions = embedding[:1], embedding[1:]
        maps = positions.T.unflatten(1, self.clip.visual.grid_size).unsqueeze(0)
        maps = resize(maps, grid, mode="bicubic")
        return torch.cat([class_position, maps[0].flatten(1).T])

    @staticmethod
    def value_path(block: Any, tokens: Tensor) -> Tensor:
        """Run a block with each token attending only to itself."""
        attention = block.attn
        values = F.linear(block.ln_1(tokens), attention.in_proj_weight.chunk(3)[2], attention.in_proj_bias.chunk(3)[2])
        tokens = tokens + block.ls_1(attention.out_proj(values))
        return tokens + block.ls_2(block.mlp(block.ln_2(tokens)))
