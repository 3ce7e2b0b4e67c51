"""Which parameters train: strategies for CLIP's two towers (Table II); everything outside CLIP always does."""

import re

from torch import nn

# what "weight" trains: layer scales, depthwise convolutions and MLPs of a ConvNeXt;
# attention inputs and first MLP layers of a transformer
CONVNEXT_WEIGHTS = re.compile(r"\.gamma$|\.(conv_dw|mlp\.fc\d)\.weight$")
TRANSFORMER_WEIGHTS = re.compile(r"\.(attn\.in_proj_weight|mlp\.c_fc\.weight)$")


def set_trainable(model: nn.Module, *, image: str, text: str, hsm_conv: bool) -> None:
    """Set ``requires_grad`` of every parameter.

    Args:
        model: an ``ERRSeg``.
        image: strategy of CLIP's image tower: "none", "weight" or "full".
        text: strategy of CLIP's text tower.
        hsm_conv: train HSM's norm and convolution, which the published models leave frozen ("full" trains them too).
    """
    for name, parameter in model.named_parameters():
        if name.startswith("encoder.hsm."):
            trains = hsm_conv or image == "full"
        elif name.startswith("encoder.clip.visual."):
            trains = _trains(name, image)
        elif name.startswith("encoder.clip."):
            # the temperature of contrastive training is not part of the network
            trains = _trains(name, text) and not name.endswith("logit_scale")
        else:
            trains = True
        parameter.requires_grad_(trains)


def _trains(name: str, strategy: str) -> bool:
    if strategy == "weight":
        return bool(CONVNEXT_WEIGHTS.search(name) or TRANSFORMER_WEIGHTS.search(name))
    return strategy == "full"
