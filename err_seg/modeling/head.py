"""The head: everything behind CLIP, from features and words to the logits of the classes that a picture needs."""

from typing import NamedTuple

from torch import Tensor, nn

from err_seg.modeling.crm import CRM, count_class_pixels, select_classes
from err_seg.modeling.encoder import Features
from err_seg.modeling.escf import ESCF
from err_seg.modeling.gud import GUD
from err_seg.modeling.hsm import CostEmbedding, CostMaps


class Prediction(NamedTuple):
    """The network's output: logits (B, K, S/4, S/4), kept (B, K) class indices, CRM's class_scores (B, T)."""

    logits: Tensor
    kept: Tensor
    class_scores: Tensor


class Head(nn.Module):
    """HSM's cost maps, CRM's choice of classes, and ESCF and GUD on the chosen ones.

    Args:
        crm: the choice of classes.
        cost_embedding: cost maps to X.
        escf: the fusion of X; ``None`` is the ablation without ESCF (Table V).
        gud: the decoder.
    """

    def __init__(self, *, crm: CRM, cost_embedding: CostEmbedding, escf: ESCF | None, gud: GUD):
        super().__init__()
        self.cost_maps = CostMaps()
        self.crm = crm
        self.cost_embedding = cost_embedding
        self.escf = escf
        self.gud = gud

    def forward(
        self, features: Features, text: Tensor, num_kept: int | None = None, labels: Tensor | None = None
    ) -> Prediction:
        """Compare pixels and words, choose K of the T classes, and segment these.

        Args:
            features: those of B pictures.
            text: (T, D) embeddings of the vocabulary.
            num_kept: K, instead of CRM's own.
            labels: (B, H, W) int64, in training: the classes in it are kept before all others.
        """
        costs = self.cost_maps(features, text)  # B×T×H×W, B×T×H/2×W/2
        class_pixels = None if labels is None else count_class_pixels(labels, len(text))
        kept, class_scores = self.crm(costs[0], num_kept, class_pixels)  # B×K
        return Prediction(self.segment(features, costs, kept, text), kept, class_scores)

    def segment(self, features: Features, costs: list[Tensor], kept: Tensor, text: Tensor) -> Tensor:
        """Segment chosen classes.

        Args:
            features: those of B pictures.
            costs: the cost maps of all T classes, see :class:`CostMaps`.
            kept: (B, K) int64 indices of the chosen ones.
            text: (T, D) embeddings of all.

        Returns:
            (B, K, S/4, S/4) logits.
        """
        x = self.cost_embedding([select_classes(cost, kept) for cost in costs])  # B·K×C×H×W
        if self.escf is not None:
            x = self.escf(x, features.deep, text[kept])
        logits = self.gud(x, features.shallow)  # B·K×1×S/4×S/4
        return logits.unflatten(0, kept.shape)[:, :, 0]

    def blocks(self) -> list[nn.Module]:
        """List the blocks that are each run as one call, their weights used nowhere else."""
        return [] if self.escf is None else list(self.escf.layers)
