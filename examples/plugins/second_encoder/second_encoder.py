"""Guidance by a second, frozen image encoder of timm beside CLIP: ``MODEL.CLIP.ENCODER: second``.

CLIP's features are learnt from captions of whole images, those of DINOv3 from the images alone; the latter keep more of
where things begin and end. Here the last map of such an encoder guides SFM beside CLIP's deep maps. Everything else is
read from CLIP as before: the embeddings that are compared with text, and the guidance of GUD.
"""

from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn

from err_seg.config import Config, ConfigError, constraints, extra_section
from err_seg.config.section import Section, key
from err_seg.modeling.clip import OpenCLIP
from err_seg.modeling.encoder import GUIDANCE_BOUND, CLIPEncoder, FeatureMap, Features
from err_seg.modeling.layers import resize
from err_seg.models.build import read_clip
from err_seg.plugins import ENCODERS, SECTIONS
from err_seg.utils.messages import did_you_mean

__version__ = "1.0"


@SECTIONS.register("SECOND_ENCODER")
class SecondEncoderConfig(Section):
    """``EXTRA.SECOND_ENCODER``."""

    NAME: str = key("convnext_tiny.dinov3_lvd1689m", constraints.SOME_TEXT)  # of timm.list_models()
    # its weights: "timm" for those that timm fetches for the name, a file of them, or "" for random ones. A checkpoint
    # of the whole network holds them, so this is not read where MODEL.WEIGHTS is given
    PRETRAINED: str = "timm"
    OUT_INDEX: int = -1  # which of the encoder's maps guides: 0 is the first stage or block, -1 the last


class FrozenEncoder(nn.Module):
    """One map of a timm model, whose weights never train and which never leaves evaluation mode.

    Args:
        model: with ``forward_intermediates`` and ``feature_info``.
        index: of the map, 0 for the first.
        scale, shift: three factors and summands for the channels of normalised images, which turn the network's
            normalisation into that of the model.

    Attributes:
        channels, stride: of the map.
    """

    model: Any
    scale: Tensor
    shift: Tensor
    channels: int
    stride: int

    def __init__(self, model: Any, index: int, *, scale: list[float], shift: list[float]):
        super().__init__()
        self.model = model.requires_grad_(False).eval()
        self.index = index
        info = model.feature_info[index]
        self.channels, self.stride = info["num_chs"], info["reduction"]
        for name, values in (("scale", scale), ("shift", shift)):
            self.register_buffer(name, torch.tensor(values).view(-1, 1, 1), persistent=False)

    def train(self, mode: bool = True) -> "FrozenEncoder":
        """Stay in evaluation mode: no dropout, and batch norms keep their statistics."""
        return super().train(False)

    def forward(self, images: Tensor) -> Tensor:
        """Encode images (B, 3, S, S), normalised as for CLIP, to the map (B, C, h, w)."""
        # a transformer's patches need not divide S, which is a multiple of 32: those of 14 pixels do not
        sides = [max(round(side / self.stride), 1) * self.stride for side in images.shape[-2:]]
        images = resize(images * self.scale + self.shift, (sides[0], sides[1]))
        (features,) = self.model.forward_intermediates(
            images, indices=[self.index], norm=True, stop_early=True, intermediates_only=True
        )
        return features


class GuidedEncoder(CLIPEncoder):
    """An encoder of CLIP with a further deep map, which guides SFM together with the encoder's own.

    Args:
        first: the encoder, whose choice of trainable weights and repeated blocks are kept.
        second: where the further map comes from.
    """

    def __init__(self, first: CLIPEncoder, second: FrozenEncoder):
        nn.Module.__init__(self)  # CLIP belongs to `first`
        self.first, self.second = first, second
        further = FeatureMap("second", second.channels, second.stride)
        self.maps = first.maps._replace(deep=(further, *first.maps.deep))  # the last of these maps gives the grid
        self.is_hierarchical, self.image_weights = first.is_hierarchical, first.image_weights

    @property
    def clip(self) -> OpenCLIP:
        """CLIP."""
        return self.first.clip

    @classmethod
    def reads(cls, clip: OpenCLIP) -> bool:
        """Whatever the first encoder reads."""
        return True

    def image_blocks(self) -> list[nn.Module]:
        """List the first encoder's; the second is frozen, so there is nothing to recompute for it."""
        return self.first.image_blocks()

    def set_trainable(self, *, image: str, text: str, hsm_conv: bool) -> None:
        """Choose what trains in CLIP; the second encoder stays frozen, whatever is chosen."""
        self.first.set_trainable(image=image, text=text, hsm_conv=hsm_conv)

    def forward(self, images: Tensor) -> Features:
        """Encode normalised images (B, 3, S, S), S a multiple of 32."""
        features = self.first(images)
        guidance = self.second(images).clamp(-GUIDANCE_BOUND, GUIDANCE_BOUND)
        return features._replace(deep=(guidance, *features.deep))


@ENCODERS.register("second")
def build(cfg: Config, clip: OpenCLIP) -> GuidedEncoder:
    """Wrap the encoder that the package has for a CLIP, and build the second one from ``EXTRA.SECOND_ENCODER``.

    Raises:
        ConfigError: there is no such model, map or file of weights.
    """
    settings = extra_section(cfg, "SECOND_ENCODER")
    model = timm_model(settings.NAME, "" if cfg.MODEL.WEIGHTS else settings.PRETRAINED)
    count = len(getattr(model, "feature_info", []))
    if not -count <= settings.OUT_INDEX < count:
        raise ConfigError(
            f"EXTRA.SECOND_ENCODER.OUT_INDEX must be one of the {count} maps of {settings.NAME}, from {-count} to "
            f"{count - 1}, not {settings.OUT_INDEX}"
        )
    theirs = model.pretrained_cfg
    pairs = list(zip(cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD, theirs["mean"], theirs["std"], strict=True))
    second = FrozenEncoder(
        model,
        settings.OUT_INDEX % count,
        scale=[std / (255 * own_std) for _, std, _, own_std in pairs],
        shift=[(mean / 255 - own_mean) / own_std for mean, _, own_mean, own_std in pairs],
    )
    return GuidedEncoder(read_clip(cfg, clip), second)


def timm_model(name: str, pretrained: str) -> Any:
    """Build a timm model without its classifier.

    Args:
        name: of timm, with the tag of its weights or without.
        pretrained: "timm", a file of weights, or "".

    Raises:
        ConfigError: there is no such model, it gives no maps, or its weights cannot be read.
    """
    if not timm.is_model(name):
        hint = did_you_mean(name, timm.list_models(), "timm.list_models() lists them")
        raise ConfigError(f"EXTRA.SECOND_ENCODER.NAME: timm has no model {name!r}; {hint}")
    if pretrained not in ("", "timm") and not Path(pretrained).is_file():
        raise ConfigError(
            f"EXTRA.SECOND_ENCODER.PRETRAINED must be 'timm', '' or a file of weights; there is no {pretrained}"
        )
    options: dict[str, Any] = {"pretrained": bool(pretrained), "num_classes": 0}
    if pretrained not in ("", "timm"):
        options["pretrained_cfg_overlay"] = {"file": pretrained}
    try:
        try:
            model = timm.create_model(name, dynamic_img_size=True, **options)
        except TypeError:  # only transformers, which would else take images of one size, have that option
            model = timm.create_model(name, **options)
    except Exception as error:  # timm, the hub's client and torch fail in many ways
        raise ConfigError(
            f"EXTRA.SECOND_ENCODER: timm cannot build {name} ({type(error).__name__}: {error})"
        ) from error
    if not hasattr(model, "forward_intermediates"):
        raise ConfigError(f"EXTRA.SECOND_ENCODER.NAME: {name} of timm gives no maps (it has no forward_intermediates)")
    return model
