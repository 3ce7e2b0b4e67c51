"""The tiny CLIPs of the miniature world: their towers, their words, and where their weights lie.

``MODEL.CLIP.NAME: mini`` with ``MODEL.CLIP.PRETRAINED: mini`` is a ConvNeXt with the weights in the package, and
``mini_vit`` a ViT of about the same size (1.6 and 1.7 million parameters), for the comparison of Table XII;
``mini_fastvit`` is a FastViT (1.7 million), the trunk for real time. ``mini_large`` is the ConvNeXt once more,
pre-trained on the longest vocabulary.
"""

import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from timm.models import build_model_with_cfg, register_model
from timm.models.convnext import ConvNeXt
from timm.models.fastvit import FastVit, RepConditionalPosEnc
from torch import Tensor

from err_seg.mini.vocabulary import MOST_NAMES, SIXTY, mini_vocabulary, words
from err_seg.modeling.clip import CUSTOM_CLIPS, CustomCLIP
from err_seg.text.prompts import VocabularyError
from err_seg.utils.messages import did_you_mean, listed

TRUNK, FASTVIT_TRUNK = "err_seg_mini_convnext", "err_seg_mini_fastvit"
CONTEXT_LENGTH = 16
START = 1
WORDS_SHOWN = 40
COMMON_NAMES = 1000
NAME, VIT_NAME, FASTVIT_NAME, LARGE_NAME = "mini", "mini_vit", "mini_fastvit", "mini_large"


class MiniCLIP(NamedTuple):
    """A tiny CLIP: its image tower, as open_clip describes it, its weights, and how many names it is trained on."""

    vision: dict[str, Any]
    weights: Path
    names: int = SIXTY


_FOLDER = Path(__file__).parent
_FEATURES = {"out_indices": (0, 1, 2, 3), "flatten_sequential": True}  # all stages, for timm
_TIMM = {"timm_model_pretrained": False, "image_size": 64}
_CONVNEXT = {**_TIMM, "timm_model_name": TRUNK, "timm_pool": "", "timm_proj": "linear"}
# "avg" and no projection leave the trunk its own head, as in MobileCLIP2
_FASTVIT = {**_TIMM, "timm_model_name": FASTVIT_TRUNK, "timm_pool": "avg", "timm_proj": None}
_VIT = {
    "image_size": 96,
    "patch_size": 16,
    "width": 128,
    "layers": 6,
    "head_width": 32,
    "pos_embed_type": "sin_cos_2d",  # gives the patches' positions from the first step
    "pool_type": "avg",  # pre-training trains the patches
}
CLIPS = {
    NAME: MiniCLIP(_CONVNEXT, _FOLDER / "clip.safetensors"),
    VIT_NAME: MiniCLIP(_VIT, _FOLDER / "clip_vit.safetensors"),
    FASTVIT_NAME: MiniCLIP(_FASTVIT, _FOLDER / "clip_fastvit.safetensors"),
    LARGE_NAME: MiniCLIP(_CONVNEXT, _FOLDER / "clip_large.safetensors", MOST_NAMES),
}
"""What ``MODEL.CLIP.NAME`` and ``MODEL.CLIP.PRETRAINED`` may be beside open_clip's names."""
ERR_SEG_WEIGHTS = _FOLDER / "err_seg.safetensors"
"""The weights in the package of the trained network outside CLIP."""


class WordTokenizer:
    """Maps texts to tokens, one per word; case and punctuation do not count.

    Token 0 is padding, 1 the start of a text, then the words follow in order, and the largest is the end of a text, as
    CLIP's text tower expects.

    Args:
        words: all words, lower case.
        context_length: tokens of a text, start and end included.
        names: class names, which stand for the common ones.
    """

    def __init__(self, words: Sequence[str], context_length: int, names: Sequence[str] = ()):
        self.names = names
        self.ids = {word: START + 1 + i for i, word in enumerate(words)}
        self.end = START + 1 + len(words)
        self.vocab_size = self.end + 1
        self.context_length = context_length

    def __call__(self, texts: str | Sequence[str], context_length: int | None = None) -> Tensor:
        """Tokenise N texts to (N, context_length) int64; longer texts are cut, and their last token is the end of text.

        Raises:
            VocabularyError: another word; names it and the nearest of the words.
        """
        length = context_length or self.context_length
        texts = [texts] if isinstance(texts, str) else texts
        tokens = torch.zeros(len(texts), length, dtype=torch.int64)
        for row, text in zip(tokens, texts, strict=True):
            ids = [START, *(self._id(word, text) for word in re.findall(r"\w+", text.lower()))][: length - 1]
            row[: len(ids) + 1] = torch.tensor([*ids, self.end])
        return tokens

    def _id(self, word: str, text: str) -> int:
        if word in self.ids:
            return self.ids[word]
        hint = did_you_mean(word, [known for known in self.ids if len(known) > 2], "")  # not "of" for "sofa"
        raise VocabularyError(
            f"this model, which was trained on a small synthetic data set, does not support the word {word!r} of "
            f"{text!r}{'; ' + hint if hint else '.'} It supports {listed(self.ids, WORDS_SHOWN)}. This command draws "
            "images for it: err-seg mini draw --split test --count 4 --output scenes. For other images and words use "
            "another model, such as err-seg-b"
        )


def tokenizer(name: str = NAME) -> WordTokenizer:
    """Return the tokenizer of the words in the vocabulary of a tiny CLIP, one of ``CLIPS``."""
    count = CLIPS[name].names
    return WordTokenizer(words(count), CONTEXT_LENGTH, mini_vocabulary(min(count, COMMON_NAMES)).names)


def clip_config(name: str) -> dict[str, Any]:
    """Return the description of the tiny CLIP ``name``, one of ``CLIPS``, as open_clip's own ``*.json`` files do."""
    return {
        "embed_dim": 128,
        "vision_cfg": CLIPS[name].vision,
        "text_cfg": {
            "context_length": CONTEXT_LENGTH,
            "vocab_size": tokenizer(name).vocab_size,
            "width": 128,
            "heads": 4,
            "layers": 2,
        },
    }


@register_model
def err_seg_mini_convnext(pretrained: bool = False, **options: Any) -> ConvNeXt:
    """A ConvNeXt of 4 stages for timm: strides 4 to 32 with 32 to 256 channels, and 6 blocks."""
    sizes = {"depths": (1, 1, 3, 1), "dims": (32, 64, 128, 256), "ls_init_value": 1.0}
    options["pretrained_cfg"] = {"architecture": TRUNK}  # timm warns where there is none
    return build_model_with_cfg(ConvNeXt, TRUNK, pretrained, feature_cfg=_FEATURES, **sizes, **options)


@register_model
def err_seg_mini_fastvit(pretrained: bool = False, **options: Any) -> FastVit:
    """A FastViT for timm with all that MobileCLIP2-S0's has: the ConvNeXt's strides, channels and blocks."""
    sizes: dict[str, Any] = {
        "layers": (1, 1, 3, 1),
        "embed_dims": (32, 64, 128, 256),
        "mlp_ratios": (3, 3, 3, 3),
        "token_mixers": ("repmixer", "repmixer", "repmixer", "attention"),
        "pos_embs": (None, None, None, partial(RepConditionalPosEnc, spatial_shape=(7, 7))),
        "se_downsamples": (False, False, True, True),
        "lkc_use_act": True,
        "layer_scale_init_value": 1.0,
    }
    options["pretrained_cfg"] = {"architecture": FASTVIT_TRUNK, "classifier": "head.fc"}
    return build_model_with_cfg(FastVit, FASTVIT_TRUNK, pretrained, feature_cfg=_FEATURES, **sizes, **options)


CUSTOM_CLIPS.update(
    (name, CustomCLIP(partial(clip_config, name), clip.weights, partial(tokenizer, name)))
    for name, clip in CLIPS.items()
)
