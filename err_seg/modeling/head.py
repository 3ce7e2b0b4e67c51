"""The head: everything after CLIP, from features and text to the logits of the classes that an image needs."""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from err_seg.modeling.crm import CRM, NOT_KEPT, ClassScores, count_class_pixels
from err_seg.modeling.encoder import Features
from err_seg.modeling.escf import ESCF
from err_seg.modeling.gud import GUD
from err_seg.modeling.hsm import CostEmbedding, CostMaps

ABSENT = -1e4
"""A logit that no real pixel has: its probability and loss are exactly 0 in every precision."""


class Prediction(NamedTuple):
    """The network's output: logits (B, K, S/4, S/4), kept (B, K) class indices, CRM's class_scores (B, T).

    If images keep unequal numbers of classes, K is the largest of these; ``NOT_KEPT`` fills up ``kept``, and ``ABSENT``
    fills up the logits.
    """

    logits: Tensor
    kept: Tensor
    class_scores: Tensor


class Head(nn.Module):
    """HSM's cost maps, CRM's choice of classes, and ESCF and GUD on these (paper, Fig. "overall architecture").

    Args:
        crm: the choice of classes.
        cost_embedding: embeds cost maps to X.
        escf: the fusion of X; ``None`` is the ablation without ESCF (Table V).
        gud: the decoder.

    In place of each of the last three may stand another module that takes and returns the same.
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
        """Choose K of the T classes, and segment these.

        Args:
            features: features of B images.
            text: (T, D) embeddings of the vocabulary.
            num_kept: K, instead of CRM's own.
            labels: (B, H, W) int64, in training: the classes in them are kept before all others.
        """
        kept, class_scores = self.choose(features, text, num_kept, labels)
        return Prediction(self.segment(features, text, kept), kept, class_scores)

    def choose(
        self, features: Features, text: Tensor, num_kept: int | None = None, labels: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Choose classes by their cost maps; arguments as above. Return kept (B, K) and class_scores (B, T)."""
        class_pixels = None if labels is None else count_class_pixels(labels, len(text))
        first, *others = self.cost_maps.of_vocabulary(features, text)
        return self.crm(first, num_kept, class_pixels, others)

    def score_classes(self, features: Features, text: Tensor) -> ClassScores:
        """Score all T classes by their cost maps, for a choice that is made later; arguments as above."""
        first, *others = self.cost_maps.of_vocabulary(features, text)
        return self.crm.score_classes(first, others)

    def segment(self, features: Features, text: Tensor, kept: Tensor, *, has_padding: bool | None = None) -> Tensor:
        """Segment chosen classes; images that keep equal numbers of classes run together.

        Nothing is padded, so that an image's result does not depend on the others in its batch.

        Args:
            features: features of B images.
            text: (T, D) embeddings of the vocabulary.
            kept: (B, K) int64 indices of the chosen classes; ``NOT_KEPT`` fills up the end of a row.
            has_padding: whether rows may be filled up; ``None`` if this head's CRM chose the classes.

        Returns:
            (B, K, S/4, S/4) logits, ``ABSENT`` where a row is filled up.
        """
        if not (self.crm.is_adaptive if has_padding is None else has_padding):
            return self.segment_equal(features, text[kept])
        numbers = (kept != NOT_KEPT).sum(dim=1)
        rows: dict[int, Tensor] = {}
        for number in numbers.unique().tolist():
            places = (numbers == number).nonzero()[:, 0]
            some = Features(*(tuple(maps[places] for maps in use) for use in features))
            logits = self.segment_equal(some, text[kept[places, :number]])
            filled = F.pad(logits, (0, 0, 0, 0, 0, kept.shape[1] - number), value=ABSENT)
            rows |= dict(zip(places.tolist(), filled, strict=True))
        return torch.stack([rows[row] for row in range(len(kept))])

    def segment_equal(self, features: Features, text: Tensor) -> Tensor:
        """Segment the K classes with the embeddings (B, K, D) to logits (B, K, S/4, S/4)."""
        costs = self.cost_maps(features, text)  # B×K×H×W, B×K×H/2×W/2
        x = self.cost_embedding(costs)  # B·K×C×H×W
        if self.escf is not None:
            x = self.escf(x, features.deep, text)
        logits = self.gud(x, features.shallow)  # B·K×1×S/4×S/4
        return logits.unflatten(0, text.shape[:2])[:, :, 0]

    def blocks(self) -> list[nn.Module]:
        """List the blocks that are each run as one call, with weights used nowhere else."""
        return list(getattr(self.escf, "layers", ()))
