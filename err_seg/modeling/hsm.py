"""HSM, the hierarchical semantic module (paper, "Hierarchical Semantic Module"): cost maps at two strides.

With CRM it makes up the RRHC of the paper's journal version. X, the embedding of the kept cost maps, is here as well.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from err_seg.modeling.cpu import PerClass
from err_seg.modeling.encoder import Features
from err_seg.modeling.layers import resize
from err_seg.utils.device import autocast

CLASSES_AT_A_TIME = 1024
"""How many classes of a vocabulary are ranked at a time, so that memory does not grow with T·H·W."""


class CostMaps(nn.Module):
    """Cost maps C16 and C32 (paper, HSM): C(t, p) = E(p) · T(t) / (‖E(p)‖ ‖T(t)‖) for class t and pixel p.

    E is E16 or E32, the CLIP embedding of every pixel; T holds the text embeddings.
    """

    def forward(self, features: Features, text: Tensor) -> list[Tensor]:
        """Compare all pixels with some classes.

        Args:
            features: features of B images.
            text: embeddings of any length, (T, D) of the same classes for all images, or (B, K, D).

        Returns:
            For each map of embeddings a cost map (B, T, h, w), or (B, K, h, w), float32 in [−1, 1]; the first is on the
            grid (H, W).
        """
        first, *others = (cosine_similarity(unit_pixels(maps), text) for maps in features.embeddings)
        return [on_grid(first, features), *others]

    def of_vocabulary(self, features: Features, text: Tensor) -> list[Iterator[Tensor]]:
        """Return the cost maps of T classes, (T, D), each as an iterator over parts (B, t, h, w) of a few classes."""
        first, *others = features.embeddings
        return [(on_grid(part, features) for part in in_parts(first, text)), *(in_parts(maps, text) for maps in others)]


def in_parts(embeddings: Tensor, text: Tensor) -> Iterator[Tensor]:
    """Yield a cost map in parts (B, t, h, w) of a few classes each, in the order of the classes."""
    pixels = unit_pixels(embeddings)
    for classes in text.split(CLASSES_AT_A_TIME):
        yield cosine_similarity(pixels, classes)


def unit_pixels(embeddings: Tensor) -> Tensor:
    """Scale the embeddings of pixels (B, D, h, w) to length 1, in float32."""
    return F.normalize(embeddings.float(), dim=1)


def on_grid(cost: Tensor, features: Features) -> Tensor:
    """Resize a cost map to the grid (H, W); only without HSM, where the single map is E32's, does this change it."""
    return resize(cost, features.deep[-1].shape[-2:])


def cosine_similarity(pixels: Tensor, text: Tensor) -> Tensor:
    """Compare unit pixels (B, D, h, w) with text (T, D) or (B, K, D): (B, T or K, h, w) in [−1, 1], always float32."""
    with autocast(pixels.device, None):
        text = F.normalize(text.float(), dim=-1)
        return torch.einsum("bchw,tc->bthw" if text.dim() == 2 else "bchw,btc->bthw", pixels, text)


class CostEmbedding(PerClass):
    """Embed the kept cost maps: X = Conv1×1((Conv7×7(C16) + resize(Conv7×7(C32))) / 2) (paper, input of ESCF).

    Each class is embedded by itself, with the same weights.

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
        """Embed cost maps (B, K, H, W), the first at stride 16, to X (B·K, C, H, W), image-major."""
        batch, _, height, width = costs[0].shape
        return self.few_at_a_time(self.embed, *costs, places=batch * height * width).flatten(0, 1)

    def embed(self, *costs: Tensor) -> Tensor:
        """Embed the cost maps (B, n, H, W) of some classes to (B, n, C, H, W)."""
        grid = costs[0].shape[-2:]
        maps = [cost.flatten(0, 1).unsqueeze(1) for cost in costs]  # B·n×1×h×w
        embedded = [resize(conv(cost), grid) for conv, cost in zip(self.convs, maps, strict=True)]
        return self.fuse(sum(embedded[1:], start=embedded[0]) / len(embedded)).unflatten(0, costs[0].shape[:2])
