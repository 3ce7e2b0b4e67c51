"""HSM, the hierarchical semantic module: cost maps of two strides, and their embedding X."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from err_seg.device import autocast
from err_seg.modeling.encoder import Features
from err_seg.modeling.layers import resize


class CostMaps(nn.Module):
    """Cosine similarity of every pixel's CLIP embedding to every class's text embedding (paper, C16 and C32)."""

    def forward(self, features: Features, text: Tensor) -> list[Tensor]:
        """Compare all pixels with all classes.

        Args:
            features: those of B pictures.
            text: (T, D) embeddings of the vocabulary, of any length.

        Returns:
            A cost map (B, T, h, w) for each map of embeddings, float32 in [−1, 1]; the first is on the grid (H, W).
        """
        costs = [cosine_similarity(pixels, text) for pixels in features.embeddings]
        costs[0] = resize(costs[0], features.deep[-1].shape[-2:])  # without HSM the only map is E32's
        return costs


def cosine_similarity(pixels: Tensor, text: Tensor) -> Tensor:
    """Compare pixels (B, D, h, w) with text (T, D); gives (B, T, h, w) in [−1, 1], always float32."""
    with autocast(pixels.device, None):
        pixels = F.normalize(pixels.float(), dim=1)
        text = F.normalize(text.float(), dim=1)
        return torch.einsum("bchw,tc->bthw", pixels, text)


class CostEmbedding(nn.Module):
    """Embed the kept cost maps: a 7×7 convolution for each stride, averaged on the stride-16 grid, then 1×1 to X.

    Args:
        num_maps: 2 for HSM's pair (C16, C32), 1 for the single map without HSM (Table V).
        hidden_dim: channels of the 7×7 convolutions.
        dim: channels of X.
    """

    def __init__(self, *, num_maps: int = 2, hidden_dim: int = 256, dim: int = 128):
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(1, hidden_dim, 7, padding=3) for _ in range(num_maps))
        self.fuse = nn.Conv2d(hidden_dim, dim, 1)

    def forward(self, costs: list[Tensor]) -> Tensor:
        """Embed cost maps (B, K, H, W), the first at stride 16, to X (B·K, C, H, W), picture-major."""
        grid = costs[0].shape[-2:]
        maps = [cost.flatten(0, 1).unsqueeze(1) for cost in costs]  # B·K×1×h×w
        embedded = [resize(conv(cost), grid) for conv, cost in zip(self.convs, maps, strict=True)]
        return self.fuse(sum(embedded[1:], start=embedded[0]) / len(embedded))
