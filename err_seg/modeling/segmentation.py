"""The compact result of a picture: the K kept classes' maps and their indices, at any size on request."""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from err_seg.modeling.layers import resize

CLASSES_AT_A_TIME = 8


@dataclass(frozen=True, eq=False)
class Segmentation:
    """What the network says about one picture.

    The K maps are held at the network's own resolution and resized (bilinear, of probabilities) when they are asked
    for, so that 847 classes on a 12-megapixel picture cost megabytes until somebody wants more.

    Attributes:
        probabilities: (K, S/4, S/4) float32 in [0, 1].
        kept: (K,) int64 vocabulary indices of the kept classes, ascending.
        vocabulary: the T class names.
        size: (H, W) of the results, the picture's own unless another was asked for.
        class_scores: (T,) float32, CRM's score of every class of the vocabulary.
    """

    probabilities: Tensor
    kept: Tensor
    vocabulary: tuple[str, ...]
    size: tuple[int, int]
    class_scores: Tensor

    @property
    def labels(self) -> Tensor:
        """(H, W) int64: for every pixel the vocabulary index of the most probable class."""
        return self._best[1]

    @property
    def scores(self) -> Tensor:
        """(H, W) float32 in [0, 1]: the probability of that class."""
        return self._best[0]

    @property
    def maps(self) -> Tensor:
        """(K, H, W) float32 in [0, 1]: the probability of each kept class; made anew at every call."""
        return resize(self.probabilities.unsqueeze(0), self.size)[0]

    def dense(self) -> Tensor:
        """Return (T, H, W) float32 probabilities, 0 for classes that were not kept; this takes 4·T·H·W bytes."""
        dense = self.probabilities.new_zeros(len(self.vocabulary), *self.size)
        dense[self.kept] = self.maps
        return dense

    def resized(self, size: tuple[int, int]) -> "Segmentation":
        """Return the same result at another size (H, W)."""
        return Segmentation(self.probabilities, self.kept, self.vocabulary, size, self.class_scores)

    @cached_property
    def _best(self) -> tuple[Tensor, Tensor]:
        """The highest probability of every pixel and its class, a few classes at a time to spare memory."""
        best, place = self.probabilities.new_full(self.size, -1.0), self.kept.new_zeros(self.size)
        for first in range(0, len(self.kept), CLASSES_AT_A_TIME):
            chunk = self.probabilities[first : first + CLASSES_AT_A_TIME].unsqueeze(0)
            score, index = resize(chunk, self.size)[0].max(dim=0)
            better = score > best
            best = torch.where(better, score, best)
            place = torch.where(better, index + first, place)
        return best, self.kept[place]
