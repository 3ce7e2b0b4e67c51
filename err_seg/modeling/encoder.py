"""CLIP read densely, at every pixel: what an image tower outputs to the rest of the network, and what it declares."""

import re
from abc import ABC, abstractmethod
from typing import NamedTuple

from torch import Tensor, nn

from err_seg.modeling.clip import OpenCLIP, embed_prompts, text_tower

GUIDANCE_BOUND = 16.0
# what the strategy "weight" trains in a transformer: attention inputs and first MLP layers
TRANSFORMER_WEIGHTS = re.compile(r"\.(attn\.in_proj_weight|mlp\.c_fc\.weight)$")


class FeatureMap(NamedTuple):
    """What is known about a map before it is computed: its name in the paper, its channels and its stride."""

    name: str
    channels: int
    stride: int


class FeatureMaps(NamedTuple):
    """The maps of :class:`Features`, in its order."""

    embeddings: tuple[FeatureMap, ...]
    deep: tuple[FeatureMap, ...]
    shallow: tuple[FeatureMap, ...]


class Features(NamedTuple):
    """What the image tower hands to the rest of the network.

    embeddings: CLIP embeddings of every pixel, (B, D, h, w); CRM ranks by the first map: (E16, E32) with HSM,
        (E32,) without, (E16,) for a ViT, (E32, E64) and (E64,) for a trunk with five stages.
    deep: guidance maps for ESCF, deepest first: (F4, F3), or a ViT's last map; values within ±16. Any number of them;
        the size of the last is the grid (H, W).
    shallow: guidance maps for GUD's stages: (F3, F2, F1), or none; values within ±16.
    """

    embeddings: tuple[Tensor, ...]
    deep: tuple[Tensor, ...]
    shallow: tuple[Tensor, ...]


class CLIPEncoder(nn.Module, ABC):
    """A CLIP whose text tower embeds prompts and whose image tower is read at every pixel (paper, VLM encoders).

    There is a subclass for each kind of image tower. It declares all that the rest of the code needs about a backbone.

    Args:
        clip: open_clip's CLIP, one that :meth:`reads` accepts.

    Attributes:
        maps: names, channels and strides of what :meth:`forward` returns.
    """

    is_hierarchical: bool
    """Whether there are features at strides 4 to 16; HSM and the guidance of GUD need them.

    Such encoders are subclasses of :class:`err_seg.modeling.hierarchical.HierarchicalEncoder`, and are built with the
    same arguments."""

    image_weights: re.Pattern[str]
    """Matches the names of the parameters that the strategy ``"weight"`` trains in the image tower."""

    clip: OpenCLIP
    maps: FeatureMaps

    def __init__(self, clip: OpenCLIP):
        super().__init__()
        self.clip = clip

    @classmethod
    @abstractmethod
    def reads(cls, clip: OpenCLIP) -> bool:
        """Whether this class can read the image tower of ``clip``."""

    @abstractmethod
    def forward(self, images: Tensor) -> Features:
        """Encode normalised images (B, 3, S, S), S a multiple of 32."""

    @abstractmethod
    def image_blocks(self) -> list[nn.Module]:
        """List the image tower's blocks that are each run as one call, with weights used nowhere else."""

    @property
    def embedding_dim(self) -> int:
        """D, the size of CLIP's joint embeddings."""
        projection = text_tower(self.clip).text_projection
        return projection.out_features if isinstance(projection, nn.Linear) else projection.shape[1]

    @property
    def trains_text(self) -> bool:
        """Whether a part of the text tower is trained, so that its embeddings change with every step."""
        return any(parameter.requires_grad for parameter in text_tower(self.clip).transformer.parameters())

    def fused(self) -> "CLIPEncoder":
        """Return what computes the same in inference with fewer operations: where there is nothing to fuse, itself."""
        return self

    def encode_text(self, tokens: Tensor) -> Tensor:
        """Embed the prompts of T classes, (T, P, L) tokens, to unit vectors (T, D)."""
        return embed_prompts(self.clip, tokens)

    def blocks(self) -> list[nn.Module]:
        """List the blocks of both towers that are each run as one call, with weights used nowhere else."""
        return [*text_tower(self.clip).transformer.resblocks, *self.image_blocks()]

    def set_trainable(self, *, image: str, text: str, hsm_conv: bool) -> None:
        """Choose which parameters train (Table II), by ``requires_grad``.

        Args:
            image: strategy of the image tower: "none", "full", or "weight" for ``image_weights``.
            text: strategy of the text tower; there, "weight" means attention inputs and first MLP layers.
            hsm_conv: train HSM's norm and convolution, which the published models leave frozen; ``image="full"`` trains
                them as well.
        """
        for name, parameter in self.named_parameters():
            if name.startswith("hsm."):
                trains = hsm_conv or image == "full"
            elif name.startswith("clip.visual."):
                trains = image == "full" or (image == "weight" and bool(self.image_weights.search(name)))
            else:
                trains = text == "full" or (text == "weight" and bool(TRANSFORMER_WEIGHTS.search(name)))
                # the temperature of contrastive training is not part of the network
                trains = trains and name != "clip.logit_scale"
            parameter.requires_grad_(trains)
