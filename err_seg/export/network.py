"""The network as a function of tensors alone: what an exported file computes."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from err_seg.modeling.crm import ranked
from err_seg.prediction.model import ERRSeg

INPUTS = ("image", "text", "ranks")
OUTPUTS = ("probabilities", "kept")


class ExportableERRSeg(nn.Module):
    """Images of any one size and any vocabulary in, the kept classes' probabilities out.

    K is given as the length of an input, since an exported graph can leave a length open, but not a number. With a
    minimum score, images need different numbers of classes, and the graph takes one image at a time.

    Args:
        model: the network; its parts are shared, not copied.
    """

    def __init__(self, model: ERRSeg):
        super().__init__()
        self.model = model
        self.encoder = model.encoder.fused()

    def forward(self, image: Tensor, text: Tensor, ranks: Tensor) -> tuple[Tensor, Tensor]:
        """Segment B images.

        Args:
            image: (B, 3, H, W) float32 RGB in 0..255; B is 1 with a minimum score.
            text: (T, D) float32 text embeddings, T at least 1.
            ranks: (K,) int64, 0, 1, ..., K - 1: which places of CRM's ranking are kept; K at most T. With a minimum
                score, only as many of them as the image needs.

        Returns:
            Probabilities (B, K, S/4, S/4) in 0..1, and the vocabulary indices (B, K) of their classes, ascending.
        """
        model = self.model
        normalised = (image - model.pixel_mean) / model.pixel_std
        # not `resize`, whose shortcut for equal sizes would fix the size in the graph
        size = (model.size, model.size)
        features = self.encoder(F.interpolate(normalised, size, mode="bilinear", align_corners=False))
        costs = model.head.cost_maps(features, text)  # in one part: a graph cannot loop over an open number of parts
        kept = self.choose(costs, ranks)
        logits = model.head.segment_equal(features, text[kept])
        return logits.sigmoid(), kept

    def choose(self, costs: list[Tensor], ranks: Tensor) -> Tensor:
        """Choose classes by cost maps (B, T, h, w): those in the first K places of CRM's ranking.

        Returns:
            (B, K') int64 class indices, ascending; K' is K or, with a minimum score, as many as the image needs.
        """
        crm, num_classes = self.model.head.crm, costs[0].shape[1]
        # a graph has R ranks whatever T is: fewer classes leave the last to fillers, whose cost is below every cosine
        first, *others = (F.pad(cost, (0, 0, 0, 0, 0, crm.num_ranks - 1), value=-2.0) for cost in costs)
        scores = crm.scores(*crm.winners([first]))
        best = ranked(scores[:, :num_classes]).index_select(1, ranks)
        if not crm.is_adaptive:
            return best.sort(dim=1).values
        shares = crm.shares(scores / (first.shape[2] * first.shape[3]), [[cost] for cost in others])
        needed = crm.needed(best, shares)
        kept = best[needed].sort().values
        torch._check(kept.shape[0] >= 1)  # an exporter cannot find this out itself
        return kept.unsqueeze(0)


def example_inputs(model: ERRSeg, num_classes: int, num_kept: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Return two random images (one with a minimum score, see above), random text embeddings and the ranks."""
    generator = torch.Generator().manual_seed(seed)
    shape = (1 if model.head.crm.is_adaptive else 2, 3, model.size + 16 * (seed + 1), model.size + 40)
    image = torch.randint(0, 256, shape, generator=generator).float()
    image = F.avg_pool2d(image, 5, stride=1, padding=2)  # less like noise, more like a photograph
    text = F.normalize(torch.randn(num_classes, model.encoder.embedding_dim, generator=generator), dim=1)
    return image, text, torch.arange(num_kept)
