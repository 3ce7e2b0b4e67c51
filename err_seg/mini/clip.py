"""The tiny CLIP of the miniature world: 1.6 million parameters, its words, and where its weights lie.

``MODEL.CLIP.NAME: mini`` with ``MODEL.CLIP.PRETRAINED: mini`` is this CLIP with the weights that the package brings.
"""

from pathlib import Path
from typing import Any

from timm.models import build_model_with_cfg, register_model
from timm.models.convnext import ConvNeXt

from err_seg.data.mini_vocabulary import WORDS
from err_seg.mini.tokenizer import WordTokenizer

NAME = "mini"
TRUNK = "err_seg_mini_convnext"
CONTEXT_LENGTH = 16
CLIP_WEIGHTS = Path(__file__).with_name("clip.safetensors")


def tokenizer() -> WordTokenizer:
    """Return the tokenizer of the miniature world's words."""
    return WordTokenizer(WORDS, CONTEXT_LENGTH)


def clip_config() -> dict[str, Any]:
    """Return the description of the tiny CLIP, as open_clip's own ``*.json`` files write it."""
    return {
        "embed_dim": 128,
        "vision_cfg": {
            "timm_model_name": TRUNK,
            "timm_model_pretrained": False,
            "timm_pool": "",
            "timm_proj": "linear",
            "image_size": 64,
        },
        "text_cfg": {
            "context_length": CONTEXT_LENGTH,
            "vocab_size": tokenizer().vocab_size,
            "width": 128,
            "heads": 4,
            "layers": 2,
        },
    }


@register_model
def err_seg_mini_convnext(pretrained: bool = False, **options: Any) -> ConvNeXt:
    """A ConvNeXt of 4 stages for timm: strides 4 to 32 with 32 to 256 channels, and 6 blocks."""
    features = {"out_indices": (0, 1, 2, 3), "flatten_sequential": True}
    sizes = {"depths": (1, 1, 3, 1), "dims": (32, 64, 128, 256), "ls_init_value": 1.0}
    options["pretrained_cfg"] = {"architecture": TRUNK}  # timm warns where there is none
    return build_model_with_cfg(ConvNeXt, TRUNK, pretrained, feature_cfg=features, **sizes, **options)
