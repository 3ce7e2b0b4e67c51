"""Dense features: CLIP's embedding of every cell of an image, comparable with those of words."""

from typing import NamedTuple

from torch import Tensor


class DenseFeatures(NamedTuple):
    """The embeddings of an image's cells, in the space of the text embeddings.

    ``torch.einsum("td,dhw->thw", model.embed_vocabulary(names), embeddings)`` are the cosines of T names and all cells.

    embeddings: (D, h, w) float32 unit vectors of the map by which CRM ranks: E16, h = w = S/16, where there is one.
    size: (H, W) of the image, in pixels.
    """

    embeddings: Tensor
    size: tuple[int, int]

    @property
    def stride(self) -> tuple[float, float]:
        """Pixels of the image per cell, down and across."""
        return self.size[0] / self.embeddings.shape[1], self.size[1] / self.embeddings.shape[2]
