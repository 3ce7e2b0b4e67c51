"""ESCF, efficient semantic context fusion (paper, "Efficient Semantic Context Fusion"; RRCA in its journal version).

Each layer runs SFM within the map of every class, then CFM between the classes at every place.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

from timm.layers import DropPath
from torch import Tensor, nn
from torch.nn import functional as F

from err_seg.modeling.cpu import PerClass
from err_seg.modeling.layers import MLP, NORM_EPS, ConvReLU6, GuidedAttention, init_fusion_weights, resize


class FusionModule(PerClass):
    """What SFM and CFM have in common (paper, ESCF): norm, guided attention, norm and (star) MLP.

    Args:
        dim: channels C.
        guidance_dim: channels G of the guidance.
        num_heads: attention heads.
        mlp_ratio: hidden width of the MLP, as a multiple of C.
        ssr_ratio: SSR's ratio for keys and values; 1 leaves SSR out (Table X).
        star: whether to use the star MLP instead of the plain two-layer MLP (Table IX).
        drop_path_rate: stochastic depth on the residuals of attention and MLP.
    """

    def __init__(
        self,
        *,
        dim: int = 128,
        guidance_dim: int = 128,
        num_heads: int = 4,
        mlp_ratio: float = 3.0,
        ssr_ratio: int = 1,
        star: bool = True,
        drop_path_rate: float = 0.0,
    ):
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=NORM_EPS)
        self.attention = GuidedAttention(dim, guidance_dim, num_heads, ssr_ratio)
        self.norm2 = nn.LayerNorm(dim, eps=NORM_EPS)
        self.mlp = MLP(dim, int(mlp_ratio * dim), star=star)
        self.drop_path = DropPath(drop_path_rate)


class SFM(FusionModule):
    """Spatial fusion module: attention between the pixels of one class map, then the star MLP (paper, SFM; Table VIII).

    With the tokens x of one class, the image guidance g and n = LN(x), where SSR shortens keys and values (Table X):

        x ← x + Attention(q = [n; g], (k, v) = SSR([n; g], n))
        x ← x + DWConv7×7(StarMLP(LN(x)))

    A sample of stochastic depth is one class map of one image.
    """

    def __init__(self, *, dim: int = 128, **options: Any):
        super().__init__(dim=dim, **options)
        self.dwconv = nn.Conv2d(dim, dim, 7, padding=3, groups=dim)
        self.apply(init_fusion_weights)

    def forward(self, x: Tensor, guidance: Tensor) -> Tensor:
        """Fuse x (B, K, H, W, C) under the image guidance (B, H, W, G) to (B, K, H, W, C)."""
        batch, _, height, width, _ = x.shape
        return self.few_at_a_time(partial(self.fuse, guidance=guidance), x, places=batch * height * width)

    def fuse(self, x: Tensor, guidance: Tensor) -> Tensor:
        """Fuse the maps of some classes; arguments as above."""
        batch, grid = x.shape[:2], (x.shape[2], x.shape[3])
        pixels = self.norm1(x).flatten(2, 3)  # B×K×HW×C
        attended = self.attention(pixels, guidance.flatten(1, 2).unsqueeze(1), grid)
        x = x.flatten(0, 1)  # B·K×H×W×C
        x = x + self.drop_path(attended.view_as(x))
        x = x + self.drop_path(self.dwconv(self.mlp(self.norm2(x)).permute(0, 3, 1, 2)).permute(0, 2, 3, 1))
        return x.unflatten(0, batch)


class CFM(FusionModule):
    """Category fusion module: attention between the K classes at one place, then the star MLP (paper, CFM; Table VIII).

    With the text guidance t and n = LN(p), on maps p that CSR (category sequence reduction, Table X) has pooled:

        p = AvgPool(x)
        p ← p + Attention(q = [n; t], k = [n; t], v = n)
        p ← p + ReLU6(StarMLP(LN(p)))
        x ← x + resize(p)

    Stochastic depth acts on the two inner residuals; a sample is one place of one image.

    Args:
        csr_ratio: how much CSR pools each side; 1 leaves CSR out.
        options: see :class:`FusionModule`.
    """

    def __init__(self, *, csr_ratio: int = 2, **options: Any):
        super().__init__(**options)
        self.csr_ratio = csr_ratio
        self.apply(init_fusion_weights)

    def forward(self, x: Tensor, guidance: Tensor) -> Tensor:
        """Fuse x (B, K, H, W, C) under the text guidance (B, K, G) to (B, K, H, W, C)."""
        batch, grid = x.shape[:2], (x.shape[2], x.shape[3])
        pooled = x.flatten(0, 1).permute(0, 3, 1, 2)  # B·K×C×H×W
        if self.csr_ratio > 1:
            pooled = F.avg_pool2d(pooled, self.csr_ratio)
        coarse = pooled.shape[-2:]
        places = pooled.unflatten(0, batch).permute(0, 3, 4, 1, 2).flatten(1, 2)  # B×hw×K×C
        fuse = partial(self.fuse, guidance=guidance.unsqueeze(1))
        places = self.few_at_a_time(fuse, places, places=batch[0] * batch[1])
        fused = places.unflatten(1, coarse).permute(0, 3, 1, 2, 4)  # B×K×h×w×C
        return self.few_at_a_time(self.add_resized, x, fused, places=batch[0] * grid[0] * grid[1])

    @staticmethod
    def add_resized(x: Tensor, fused: Tensor) -> Tensor:
        """Add the fused maps of some classes (B, n, h, w, C), resized, to their x (B, n, H, W, C)."""
        maps = fused.flatten(0, 1).contiguous().permute(0, 3, 1, 2)  # B·n×C×h×w, channels last
        resized = resize(maps, (x.shape[2], x.shape[3]), align_corners=True)
        return x + resized.permute(0, 2, 3, 1).unflatten(0, x.shape[:2])

    def fuse(self, places: Tensor, guidance: Tensor) -> Tensor:
        """Fuse the classes at each place: places (B, hw, K, C) under guidance (B, 1, K, G)."""
        batch = places.shape[:2]
        attended = self.attention(self.norm1(places), guidance, grid=(0, 0)).flatten(0, 1)
        tokens = places.flatten(0, 1)  # B·hw×K×C
        tokens = tokens + self.drop_path(attended)
        tokens = tokens + self.drop_path(F.relu6(self.mlp(self.norm2(tokens))))
        return tokens.unflatten(0, batch)


class ESCFLayer(nn.Module):
    """One layer of ESCF (paper, ESCF): SFM, then CFM; either may be left out (Table VIII)."""

    def __init__(self, *, sfm: SFM | None, cfm: CFM | None):
        super().__init__()
        self.sfm = sfm
        self.cfm = cfm

    def forward(self, x: Tensor, image_guidance: Tensor | None, text_guidance: Tensor | None) -> Tensor:
        """Fuse x (B, K, H, W, C) under image guidance (B, H, W, G) and text guidance (B, K, G)."""
        if self.sfm is not None:
            x = self.sfm(x, image_guidance)
        if self.cfm is not None:
            x = self.cfm(x, text_guidance)
        return x


class ImageGuidance(nn.Module):
    """ESCF's image guidance g (paper, SFM): CLIP's deep maps, projected, averaged on the stride-16 grid, fused by 1×1.

    Args:
        in_dims: channels of the maps, deepest first (F4, F3).
        hidden_dim: channels of the 3×3 projections.
        dim: channels G.
    """

    def __init__(self, *, in_dims: Sequence[int], hidden_dim: int = 256, dim: int = 128):
        super().__init__()
        self.projections = nn.ModuleList(ConvReLU6(in_dim, hidden_dim) for in_dim in in_dims)
        self.fuse = nn.Conv2d(hidden_dim, dim, 1)

    def forward(self, features: Sequence[Tensor], grid: tuple[int, int]) -> Tensor:
        """Fuse feature maps (B, in_dim, h, w) to the guidance (B, H, W, G) on ``grid``."""
        maps = [resize(project(f), grid) for project, f in zip(self.projections, features, strict=True)]
        return self.fuse(sum(maps[1:], start=maps[0]) / len(maps)).permute(0, 2, 3, 1)


class TextGuidance(nn.Module):
    """ESCF's text guidance t (paper, CFM): GELU(W · T / ‖T‖) of the kept classes' text embeddings T.

    Args:
        in_dim: D, the size of CLIP's embeddings.
        dim: channels G.
    """

    def __init__(self, *, in_dim: int, dim: int = 128):
        super().__init__()
        self.project = nn.Linear(in_dim, dim)

    def forward(self, text: Tensor) -> Tensor:
        """Project embeddings (B, K, D) to the guidance (B, K, G)."""
        return F.gelu(self.project(F.normalize(text, dim=-1)))


class ESCF(nn.Module):
    """Efficient semantic context fusion (paper, ESCF; Tables V and VIII to X): layers of SFM and CFM.

    Args:
        layers: the layers, in order.
        image_guidance: SFM's guidance; ``None`` where no layer has an SFM.
        text_guidance: CFM's guidance; ``None`` where no layer has a CFM.
    """

    def __init__(
        self, *, layers: Sequence[ESCFLayer], image_guidance: ImageGuidance | None, text_guidance: TextGuidance | None
    ):
        super().__init__()
        self.image_guidance = image_guidance
        self.text_guidance = text_guidance
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor, features: Sequence[Tensor], text: Tensor) -> Tensor:
        """Fuse X within and between the kept classes.

        Args:
            x: (B·K, C, H, W) embedded cost maps, image-major.
            features: the maps for the image guidance, deepest first (F4, F3).
            text: (B, K, D) text embeddings of the kept classes.

        Returns:
            (B·K, C, H, W).
        """
        grid = (x.shape[2], x.shape[3])
        image_guidance = None if self.image_guidance is None else self.image_guidance(features, grid)
        text_guidance = None if self.text_guidance is None else self.text_guidance(text)
        # the residual stream is fp32 even under autocast: the layers' sum would exceed the range of fp16 and the eight
        # bits of bf16; the layer norms read it in fp32 in any case
        x = x.float().unflatten(0, text.shape[:2]).permute(0, 1, 3, 4, 2)  # B×K×H×W×C
        for layer in self.layers:
            x = layer(x, image_guidance, text_guidance)
        return x.permute(0, 1, 4, 2, 3).flatten(0, 1)
