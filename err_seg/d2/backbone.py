"""CLIP read densely, as a backbone of detectron2."""

from typing import Any

from detectron2.config import configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, Backbone
from fvcore.common.config import CfgNode
from torch import Tensor

from err_seg.build import build_encoder
from err_seg.d2.config import from_detectron2
from err_seg.modeling.image_encoder import CLIPEncoder, ConvNeXtEncoder
from err_seg.modeling.tuning import set_trainable

# names of the maps in the order of Features, deepest first, and strides of all
CONVNEXT_MAPS, VIT_MAPS = ("f4", "f3", "f2", "f1"), ("f4",)
STRIDES = {"f1": 4, "f2": 8, "f3": 16, "f4": 32, "e16": 16, "e32": 32}
VIT_STRIDE = 16


@BACKBONE_REGISTRY.register()
class CLIPBackbone(Backbone):
    """A CLIP whose image tower gives a map at every stage and an embedding for every pixel.

    Maps are named as in the paper: "f1" to "f4" of a ConvNeXt's stages, clamped to ±16; "e32", CLIP's embedding of
    every pixel, and "e16", that of HSM's branch. A ViT gives "f4", its last tokens, and "e16", both at stride 16.

    Args:
        encoder: the CLIP; its text tower is part of it.
        image_tuning, text_tuning, train_hsm_conv: what trains, see :func:`err_seg.modeling.tuning.set_trainable`.
    """

    @configurable
    def __init__(
        self,
        *,
        encoder: CLIPEncoder,
        image_tuning: str = "weight",
        text_tuning: str = "weight",
        train_hsm_conv: bool = False,
    ):
        super().__init__()
        self.encoder = encoder
        set_trainable(self, image=image_tuning, text=text_tuning, hsm_conv=train_hsm_conv)
        self._is_convnext = isinstance(encoder, ConvNeXtEncoder)
        self._maps = CONVNEXT_MAPS if self._is_convnext else VIT_MAPS
        has_hsm = isinstance(encoder, ConvNeXtEncoder) and encoder.hsm is not None
        self._embeddings = ("e16", "e32") if has_hsm else ("e32",) if self._is_convnext else ("e16",)

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: ShapeSpec | None = None) -> dict[str, Any]:
        """Translate ``cfg.MODEL`` into the constructor's arguments."""
        cfg = from_detectron2(cfg)
        clip = cfg.MODEL.CLIP
        return {
            "encoder": build_encoder(cfg),
            "image_tuning": clip.IMAGE_TUNING,
            "text_tuning": clip.TEXT_TUNING,
            "train_hsm_conv": cfg.MODEL.HSM.TRAIN_CONV,
        }

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Encode normalised pictures (B, 3, H, W), sides multiples of 32, to maps (B, C, H/stride, W/stride)."""
        features = self.encoder(images)
        deep = features.deep[:1]  # F3 comes with the shallow ones
        return dict(
            zip((*self._maps, *self._embeddings), (*deep, *features.shallow, *features.embeddings), strict=True)
        )

    def output_shape(self) -> dict[str, ShapeSpec]:
        """Give channels and stride of each map."""
        channels = (*self.encoder.deep_dims[:1], *self.encoder.shallow_dims)
        dims = dict(zip(self._maps, channels, strict=True)) | dict.fromkeys(
            self._embeddings, self.encoder.embedding_dim
        )
        strides = STRIDES if self._is_convnext else dict.fromkeys(dims, VIT_STRIDE)
        return {name: ShapeSpec(channels=dim, stride=strides[name]) for name, dim in dims.items()}

    @property
    def size_divisibility(self) -> int:
        """What the sides of the pictures must be multiples of."""
        return 32
