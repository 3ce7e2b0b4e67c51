"""CLIP as a backbone of detectron2, and everything behind it as a head."""

from collections.abc import Mapping
from itertools import chain
from typing import Any, TypeVar

from detectron2.config import configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, SEM_SEG_HEADS_REGISTRY, Backbone
from fvcore.common.config import CfgNode
from torch import Tensor, nn

from err_seg.d2.config import from_detectron2
from err_seg.modeling.encoder import CLIPEncoder, FeatureMap, FeatureMaps, Features
from err_seg.modeling.head import Head, Prediction
from err_seg.models.build import build_encoder, build_head

Entry = TypeVar("Entry")


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


@SEM_SEG_HEADS_REGISTRY.register()
class ERRSegHead(nn.Module):
    """The plain network's head on the maps of a backbone that names them as ``CLIPBackbone`` does."""

    @configurable
    def __init__(self, *, head: Head):
        super().__init__()
        self.head = head

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: Mapping[str, ShapeSpec]) -> dict[str, Any]:
        """Translate ``cfg.MODEL`` and the backbone's ``output_shape()`` into the constructor's arguments."""
        maps = {name: FeatureMap(name, shape.channels, shape.stride) for name, shape in input_shape.items()}
        return {"head": build_head(from_detectron2(cfg), FeatureMaps(*by_use(maps)))}

    def forward(
        self, features: Mapping[str, Tensor], text: Tensor, num_kept: int | None = None, labels: Tensor | None = None
    ) -> Prediction:
        """Choose K of T classes and segment them; ``features`` are maps by name, the rest as for :class:`Head`."""
        return self.head(Features(*by_use(features)), text, num_kept, labels)


def by_use(maps: Mapping[str, Entry]) -> list[tuple[Entry, ...]]:
    """Sort maps by what they are for, as :class:`Features` does; a backbone may lack some, or all shallow ones.

    Maps of other names, which an encoder of one's own may have, are deep guidance before F4 and F3.
    """
    embeddings, shallow = ("e16", "e32", "e64"), ("f3", "f2", "f1")
    deep = (*(name for name in maps if name not in (*embeddings, "f4", *shallow)), "f4", "f3")
    uses = (embeddings, deep, shallow if "f1" in maps else ())
    return [tuple(maps[name] for name in names if name in maps) for names in uses]
