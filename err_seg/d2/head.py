"""Everything behind CLIP, as a head of detectron2."""

from collections.abc import Mapping
from typing import Any, TypeVar

from detectron2.config import configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling import SEM_SEG_HEADS_REGISTRY
from fvcore.common.config import CfgNode
from torch import Tensor, nn

from err_seg.d2.config import from_detectron2
from err_seg.modeling.encoder import FeatureMap, FeatureMaps, Features
from err_seg.modeling.head import Head, Prediction
from err_seg.models.build import build_head

Entry = TypeVar("Entry")


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
    """Sort maps by what they are for, as :class:`Features` does; a backbone may lack some."""
    uses = (("e16", "e32", "e64"), ("f4", "f3"), ("f3", "f2", "f1"))
    return [tuple(maps[name] for name in names if name in maps) for names in uses]
