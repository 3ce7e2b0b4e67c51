"""A decoder in GUD's place: ``MODEL.GUD.NAME: shuffle``.

A part of the head is a module with keyword-only sizes, which reads no configuration; ``build`` translates.
"""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from err_seg.config import Config
from err_seg.modeling.encoder import FeatureMaps
from err_seg.plugins import DECODERS

__version__ = "1.0"

SCALE = 4  # from the grid, at stride 16, to logits at stride 4


class PixelShuffleDecoder(nn.Module):
    """Decode X without guidance: each place of the grid becomes 4×4 pixels.

    Args:
        dim: channels C of X.
    """

    def __init__(self, *, dim: int):
        super().__init__()
        self.predict = nn.Conv2d(dim, SCALE**2, 1)

    def forward(self, x: Tensor, features: Sequence[Tensor]) -> Tensor:
        """Decode x (B·K, C, H, W) to logits (B·K, 1, 4·H, 4·W); GUD's features are not used."""
        return F.pixel_shuffle(self.predict(x), SCALE)


@DECODERS.register("shuffle")
def build(cfg: Config, maps: FeatureMaps) -> PixelShuffleDecoder:
    """Build the decoder for the configured width of X; any encoder's maps will do."""
    return PixelShuffleDecoder(dim=cfg.MODEL.COST_EMBEDDING.DIM)
