"""CLIP read densely, as a backbone of detectron2."""

from itertools import chain
from typing import Any

from detectron2.config import configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, Backbone
from fvcore.common.config import CfgNode
from torch import Tensor

from err_seg.d2.config import from_detectron2
from err_seg.modeling.encoder import CLIPEncoder
from err_seg.models.build import build_encoder


@BACKBONE_REGISTRY.register()
class CLIPBackbone(Backbone):
    """A CLIP whose image tower gives a map at every stage and an embedding for every pixel.

    Maps are named as in the paper: "f1" to "f4" of a ConvNeXt's stages, clamped to ±16; "e32", CLIP's embedding of
    every pixel, and "e16", that of HSM's branch. A ViT gives "f4", its last tokens, and "e16", both at stride 16. The
    text tower is a part of ``encoder``.
    """

    @configurable
    def __init__(self, *, encoder: CLIPEncoder):
        super().__init__()
        self.encoder = encoder

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: ShapeSpec | None = None) -> dict[str, Any]:
        """Translate ``cfg.MODEL`` into the constructor's arguments."""
        return {"encoder": build_encoder(from_detectron2(cfg))}

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Encode normalised images (B, 3, H, W), sides multiples of 32, to maps (B, C, H/stride, W/stride)."""
        pairs = zip(self.encoder.maps, self.encoder(images), strict=True)
        return {map_.name: tensor for maps, tensors in pairs for map_, tensor in zip(maps, tensors, strict=True)}

    def output_shape(self) -> dict[str, ShapeSpec]:
        """Give channels and stride of each map."""
        return {m.name: ShapeSpec(channels=m.channels, stride=m.stride) for m in chain(*self.encoder.maps)}

    @property
    def size_divisibility(self) -> int:
        """What the sides of the images must be multiples of."""
        return 32
