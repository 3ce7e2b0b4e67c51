"""OpenAI's ResNet-CLIP as an encoder: ``MODEL.CLIP.ENCODER: resnet``.

An encoder declares all that the rest of the code uses: names, channels and strides of its maps, which weights are
tuned, and which blocks are repeated. Training, export and detectron2 ask nothing else of it.
"""

import re

from torch import Tensor, nn

from err_seg.config import Config, ConfigError
from err_seg.modeling.clip import OpenCLIP
from err_seg.modeling.encoder import GUIDANCE_BOUND, CLIPEncoder, FeatureMap, FeatureMaps, Features
from err_seg.models.build import check_fits
from err_seg.plugins import ENCODERS

__version__ = "1.0"


class ResNetEncoder(CLIPEncoder):
    """OpenAI's ResNet-CLIP: features F3 and F4, and for every pixel the embedding that its value path gives."""

    is_hierarchical = False  # neither HSM nor guidance for GUD
    image_weights = re.compile(r"\.conv\d\.weight$")

    def __init__(self, clip: OpenCLIP):
        super().__init__(clip)
        clip.visual.lock(freeze_bn_stats=True)  # batches are too small for statistics of their own
        f3 = FeatureMap("f3", clip.visual.layer3[-1].conv3.out_channels, stride=16)
        f4 = FeatureMap("f4", clip.visual.layer4[-1].conv3.out_channels, stride=32)
        self.maps = FeatureMaps((FeatureMap("e32", self.embedding_dim, stride=32),), deep=(f4, f3), shallow=())

    @classmethod
    def reads(cls, clip: OpenCLIP) -> bool:
        """Whether the image tower is open_clip's ResNet."""
        return hasattr(clip.visual, "attnpool") and hasattr(clip.visual, "layer4")

    def image_blocks(self) -> list[nn.Module]:
        """List the residual blocks."""
        visual = self.clip.visual
        return [block for stage in (visual.layer1, visual.layer2, visual.layer3, visual.layer4) for block in stage]

    def forward(self, images: Tensor) -> Features:
        """Encode normalised images (B, 3, S, S), S a multiple of 32."""
        visual = self.clip.visual
        f3 = visual.layer3(visual.layer2(visual.layer1(visual.stem(images))))
        f4 = visual.layer4(f3)
        pool = visual.attnpool
        e32 = pool.c_proj(pool.v_proj(f4.permute(0, 2, 3, 1))).permute(0, 3, 1, 2)  # each pixel attends to itself
        f3, f4 = (f.clamp(-GUIDANCE_BOUND, GUIDANCE_BOUND) for f in (f3, f4))
        return Features((e32,), deep=(f4, f3), shallow=())


@ENCODERS.register("resnet")
def build(cfg: Config, clip: OpenCLIP) -> ResNetEncoder:
    """Wrap a ResNet-CLIP of open_clip.

    Raises:
        ConfigError: it is another CLIP, or lacks what HSM or GUD is configured to use.
    """
    if not ResNetEncoder.reads(clip):
        raise ConfigError(
            f"MODEL.CLIP.NAME: {cfg.MODEL.CLIP.NAME} is no ResNet, which MODEL.CLIP.ENCODER 'resnet' needs"
        )
    check_fits(cfg, ResNetEncoder)
    return ResNetEncoder(clip)
