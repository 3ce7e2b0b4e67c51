"""The baseline of every comparison: the same function with the arithmetic of the released code.

It has the parameters of the network that it is made of, and gives its results, but saves nothing:

* projections of ``[x; guidance]`` act on the concatenation, written out for every class map or place;
* all T classes have maps: cost maps that are kept, logits of −100 for the classes that CRM drops, and a loss and an
  arg-max over T maps at full size;
* all classes pass ESCF and GUD at once, and linear layers are matrix products;
* the text tower reads all of CLIP's positions (77), however short the prompts are.
"""

import copy
import itertools
import sys

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from err_seg.modeling.cpu import Linear, PerClass
from err_seg.modeling.crm import count_class_pixels
from err_seg.modeling.encoder import Features
from err_seg.modeling.head import Head, Prediction
from err_seg.modeling.layers import GuidedConv2d, GuidedLinear, resize
from err_seg.prediction.model import ERRSeg

DROPPED = -100.0
"""The logit of a class that was not kept."""


class ConcatenatedLinear(GuidedLinear):
    """A linear layer on the concatenation."""

    def forward(self, x: Tensor, guidance: Tensor) -> Tensor:  # type: ignore[override]
        """Project x (B, N, L, C) and guidance (B, 1, L, G) to (B, N, L, out_dim)."""
        repeated = guidance.expand(*x.shape[:-1], -1)
        return F.linear(torch.cat([x, repeated], dim=-1), self.weight, self.bias)


class ConcatenatedConv2d(GuidedConv2d):
    """A convolution of the concatenation."""

    def forward(self, x: Tensor, guidance: Tensor) -> Tensor:  # type: ignore[override]
        """Convolve x (B·N, C, H, W) and guidance (B, G, H, W) to (B·N, out_dim, H', W')."""
        repeated = guidance.repeat_interleave(x.shape[0] // guidance.shape[0], dim=0)
        return self._conv_forward(torch.cat([x, repeated], dim=1), self.weight, self.bias)


class DenseHead(Head):
    """A head with maps of all T classes."""

    def forward(
        self, features: Features, text: Tensor, num_kept: int | None = None, labels: Tensor | None = None
    ) -> Prediction:
        """As :class:`Head`; the logits are (B, T, S/4, S/4), and ``kept`` lists all classes."""
        class_pixels = None if labels is None else count_class_pixels(labels, len(text))
        costs = self.cost_maps(features, text)  # B×T×H×W, B×T×H/2×W/2
        kept, class_scores = self.crm([costs[0]], num_kept, class_pixels)
        logits = self.segment_equal(features, text[kept])
        dense = logits.new_full((len(kept), len(text), *logits.shape[2:]), DROPPED)
        dense = dense.scatter(1, kept[:, :, None, None].expand_as(logits), logits)
        return Prediction(dense, torch.arange(len(text), device=kept.device).expand(len(kept), -1), class_scores)


PLAIN: dict[type, type] = {GuidedLinear: ConcatenatedLinear, GuidedConv2d: ConcatenatedConv2d}
PLAIN |= {Linear: nn.Linear, Head: DenseHead}


def sharing_copy(model: ERRSeg) -> ERRSeg:
    """Copy a network; parameters and buffers are shared."""
    return copy.deepcopy(model, {id(tensor): tensor for tensor in itertools.chain(model.parameters(), model.buffers())})


def reference(model: ERRSeg) -> ERRSeg:
    """Make the network that computes what ``model`` does in the released code's way, on its parameters and buffers.

    The results of its ``forward`` have maps of all T classes.
    """
    plain = sharing_copy(model)
    for module in plain.modules():
        module.__class__ = PLAIN.get(type(module), type(module))
        if isinstance(module, PerClass):
            module.places_at_a_time = sys.maxsize
    return plain


def all_positions(tokens: Tensor, context_length: int) -> Tensor:
    """Pad tokens (T, P, L) to CLIP's context length, so that the text tower reads all positions."""
    return F.pad(tokens, (0, context_length - tokens.shape[-1]))


def dense_labels(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """Label images by the arg-max over T maps at full size: logits (B, T, h, w) to (B, H, W) int64."""
    return resize(logits.float().sigmoid(), size).argmax(dim=1)


def dense_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Take the mean binary cross-entropy over T maps at full size.

    Args:
        logits: (B, T, h, w).
        labels: (B, H, W) int64; a value outside 0..T−1 is a negative of every class.
    """
    logits = resize(logits.float(), labels.shape[-2:])  # B×T×H×W
    inside = (labels >= 0) & (labels < logits.shape[1])
    targets = torch.zeros_like(logits).scatter_(1, labels.where(inside, 0).unsqueeze(1), inside.unsqueeze(1).float())
    return F.binary_cross_entropy_with_logits(logits, targets)
