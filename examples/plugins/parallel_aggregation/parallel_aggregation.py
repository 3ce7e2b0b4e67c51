"""Fusion within and between classes in parallel, in ESCF's place: ``MODEL.ESCF.NAME: parallel``.

ESCF runs SFM (within the map of every class) and then CFM (between the classes), so that CFM reads what SFM changed.
PCA-Seg (Yin et al., CVPR 2026) lets both read the same input and merges the two results by experts: each computes a
proposal from both, and a small network weights the proposals at every pixel. Here the modules are SFM and CFM, and what
is merged is their changes of X, so that a layer still adds to X. The README says what else differs from the paper.
"""

from typing import Any

import torch
from torch import Tensor, nn

from err_seg.config import Config, ConfigError, constraints, extra_section
from err_seg.config.section import Section, key
from err_seg.modeling.encoder import FeatureMaps
from err_seg.modeling.escf import CFM, ESCF, SFM
from err_seg.models.build import build_escf
from err_seg.plugins import FUSIONS, SECTIONS

__version__ = "1.0"


@SECTIONS.register("PARALLEL")
class ParallelConfig(Section):
    """``EXTRA.PARALLEL``."""

    # what merges the two changes: "experts", or "gate": their sum, each weighted by one learnt factor for each channel
    MERGE: str = key("experts", constraints.one_of("experts", "gate"))
    NUM_EXPERTS: int = key(4, constraints.POSITIVE)  # of "experts"


class Gate(nn.Module):
    """Merge two changes of X to their sum, each weighted by a learnt factor for each channel, 1 at first.

    Args:
        dim: channels C.
    """

    def __init__(self, dim: int):
        super().__init__()
        self.factors = nn.Parameter(torch.ones(2, dim))

    def forward(self, spatial: Tensor, category: Tensor) -> Tensor:
        """Merge two tensors (B, K, H, W, C) to one."""
        return self.factors[0] * spatial + self.factors[1] * category


class Experts(nn.Module):
    """Merge two changes of X by N experts, weighted at every pixel (PCA-Seg, expert-driven perceptual learning).

    With u = [A·spatial; B·category], the result is R·u + Σ w_i(u) · expert_i(u), where the weights w are a softmax over
    the experts at every pixel of every class map. An expert is a 1×1 convolution, GELU and a depthwise 3×3 convolution.

    Args:
        dim: channels C, a multiple of 4.
        num_experts: N.
    """

    def __init__(self, dim: int, num_experts: int):
        super().__init__()
        self.spatial, self.category = nn.Conv2d(dim, dim, 1), nn.Conv2d(dim, dim, 1)
        self.experts = nn.ModuleList(
            nn.Sequential(nn.Conv2d(2 * dim, dim, 1), nn.GELU(), nn.Conv2d(dim, dim, 3, padding=1, groups=dim))
            for _ in range(num_experts)
        )
        self.weights = nn.Sequential(nn.Conv2d(2 * dim, dim // 4, 1), nn.ReLU(), nn.Conv2d(dim // 4, num_experts, 1))
        self.shortcut = nn.Conv2d(2 * dim, dim, 1)

    def forward(self, spatial: Tensor, category: Tensor) -> Tensor:
        """Merge two tensors (B, K, H, W, C) to one."""
        batch = spatial.shape[:2]
        spatial, category = (t.flatten(0, 1).permute(0, 3, 1, 2) for t in (spatial, category))  # B·K×C×H×W
        both = torch.cat([self.spatial(spatial), self.category(category)], dim=1)  # B·K×2C×H×W
        weights = self.weights(both).softmax(dim=1).unsqueeze(2)  # B·K×N×1×H×W
        merged = self.shortcut(both)
        for i, expert in enumerate(self.experts):
            merged = merged + weights[:, i] * expert(both)
        return merged.permute(0, 2, 3, 1).unflatten(0, batch)


class ParallelLayer(nn.Module):
    """A layer in which SFM and CFM read the same X: X ← X + merge(SFM(X) − X, CFM(X) − X)."""

    def __init__(self, *, sfm: SFM, cfm: CFM, merge: nn.Module):
        super().__init__()
        self.sfm, self.cfm, self.merge = sfm, cfm, merge

    def forward(self, x: Tensor, image_guidance: Tensor, text_guidance: Tensor) -> Tensor:
        """Fuse x (B, K, H, W, C) under image guidance (B, H, W, G) and text guidance (B, K, G)."""
        return x + self.merge(self.sfm(x, image_guidance) - x, self.cfm(x, text_guidance) - x)


@FUSIONS.register("parallel")
def build(cfg: Config, maps: FeatureMaps) -> ESCF:
    """Build ESCF from ``MODEL.ESCF``, with layers that run SFM and CFM in parallel.

    Raises:
        ConfigError: a layer lacks one of the two.
    """
    settings, dim = extra_section(cfg, "PARALLEL"), cfg.MODEL.COST_EMBEDDING.DIM
    if not (cfg.MODEL.ESCF.SFM and cfg.MODEL.ESCF.CFM):
        raise ConfigError("MODEL.ESCF.SFM and CFM must be True with MODEL.ESCF.NAME 'parallel', which merges both")
    if settings.MERGE == "experts" and dim % 4:
        raise ConfigError(
            f"MODEL.COST_EMBEDDING.DIM must be a multiple of 4 with EXTRA.PARALLEL.MERGE 'experts', not {dim}"
        )
    escf = build_escf(cfg, maps)

    def merge() -> nn.Module:
        return Gate(dim) if settings.MERGE == "gate" else Experts(dim, settings.NUM_EXPERTS)

    layers: Any = escf.layers
    escf.layers = nn.ModuleList(ParallelLayer(sfm=layer.sfm, cfm=layer.cfm, merge=merge()) for layer in layers)
    return escf
