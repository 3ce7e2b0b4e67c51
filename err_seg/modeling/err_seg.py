"""ERR-Seg: the network of the paper's figure, from images and text to the logits of the classes that they need."""

from typing import Any

from torch import Tensor, nn

from err_seg.modeling.encoder import CLIPEncoder
from err_seg.modeling.head import Head, Prediction

STRIDE = 16
"""Pixels of the input per place of the grid of cost maps, E16."""


class ERRSegNetwork(nn.Module):
    """Efficient redundancy reduction for open-vocabulary semantic segmentation (paper, Fig. "overall architecture").

    Args:
        encoder: CLIP, read densely.
        head: everything after CLIP.
    """

    def __init__(self, *, encoder: CLIPEncoder, head: Head):
        super().__init__()
        self.encoder = encoder
        self.head = head

    def forward(
        self, images: Tensor, text: Tensor, num_kept: int | None = None, labels: Tensor | None = None
    ) -> Prediction:
        """Segment normalised images: encode, then cost maps, kept classes, embedding, fusion and upsampling (`Head`).

        Args:
            images: (B, 3, S, S) float, normalised by the pixel statistics; S is a multiple of 32.
            text: the vocabulary, as (T, P, L) int64 tokens, which run through the text tower (in training), or as
                (T, D) float embeddings.
            num_kept: K, instead of the model's own.
            labels: (B, H, W) int64, in training: the classes in them are kept before all others.
        """
        text = text if text.is_floating_point() else self.encoder.encode_text(text)
        features = self.encoder(images)
        return self.head(features, text, num_kept, labels)

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Compile encoder, cost embedding, ESCF and GUD in place by ``torch.compile``, which takes the arguments.

        The first image of a shape waits for the compiler, minutes on a CPU. Whatever changes from call to call (K, the
        number of images) is compiled once more, for all its values. Hooks within the compiled parts are not called.
        """
        for part in (self.encoder, self.head.cost_embedding, self.head.escf, self.head.gud):
            if part is not None:
                part.compile(*args, **kwargs)

    @property
    def is_compiled(self) -> bool:
        """Whether it is compiled, see :meth:`compile`."""
        return self.head.gud._compiled_call_impl is not None

    def blocks(self) -> list[nn.Module]:
        """List the blocks of the CLIP towers and ESCF, each run as one call, with weights used nowhere else."""
        return self.encoder.blocks() + self.head.blocks()
