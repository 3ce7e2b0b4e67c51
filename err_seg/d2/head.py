"""Everything behind CLIP, as a head of detectron2."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from detectron2.config import configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling import SEM_SEG_HEADS_REGISTRY
from fvcore.common.config import CfgNode
from torch import Tensor

from err_seg.build import head_arguments
from err_seg.d2.config import from_detectron2
from err_seg.modeling.crm import CRM
from err_seg.modeling.err_seg import Head, Prediction
from err_seg.modeling.escf import ESCF
from err_seg.modeling.gud import GUD
from err_seg.modeling.hsm import CostEmbedding, CostMaps
from err_seg.modeling.image_encoder import Features

EMBEDDINGS = ("e16", "e32")
DEEP = ("f4", "f3")
SHALLOW = ("f3", "f2", "f1")


class _Dims(NamedTuple):
    embedding_dim: int
    deep_dims: tuple[int, ...]
    shallow_dims: tuple[int, ...]


@SEM_SEG_HEADS_REGISTRY.register()
class ERRSegHead(Head):
    """HSM's cost maps, CRM, ESCF and GUD on the maps of a backbone that names them as ``CLIPBackbone`` does.

    Args:
        crm, cost_embedding, escf, gud: see :class:`err_seg.modeling.ERRSeg`.
        num_kept: K in evaluation, and ``num_kept_train`` in training; ``None`` keeps all classes.
    """

    @configurable
    def __init__(
        self,
        *,
        crm: CRM,
        cost_embedding: CostEmbedding,
        escf: ESCF | None,
        gud: GUD,
        num_kept: int | None,
        num_kept_train: int | None,
    ):
        super().__init__()
        self.cost_maps = CostMaps()
        self.crm = crm
        self.cost_embedding = cost_embedding
        self.escf = escf
        self.gud = gud
        self.num_kept = num_kept
        self.num_kept_train = num_kept_train

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: Mapping[str, ShapeSpec]) -> dict[str, Any]:
        """Translate ``cfg.MODEL`` and the backbone's ``output_shape()`` into the constructor's arguments."""
        embeddings = _present(EMBEDDINGS, input_shape)
        shapes = {name: shape.channels for name, shape in input_shape.items()}
        deep, shallow = _present(DEEP, shapes), _present(SHALLOW, shapes)
        return head_arguments(from_detectron2(cfg), _Dims(embeddings[0].channels, deep, shallow), len(embeddings))

    def forward(
        self, features: Mapping[str, Tensor], text: Tensor, num_kept: int | None = None, labels: Tensor | None = None
    ) -> Prediction:
        """Choose K of T classes and segment.

        Args:
            features: maps by name.
            text: (T, D) embeddings of the vocabulary.
            num_kept: K, instead of the head's own.
            labels: (B, H, W) int64, in training: the classes in it are kept before all others.
        """
        maps = Features(_present(EMBEDDINGS, features), _present(DEEP, features), _present(SHALLOW, features))
        return self.segment(maps, text, num_kept, labels)


def _present(names: tuple[str, ...], entries: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(entries[name] for name in names if name in entries)
