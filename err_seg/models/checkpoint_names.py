"""The names of a checkpoint's entries: released, detectron2's and earlier ones, translated into today's."""

import re
from collections.abc import Mapping
from typing import Any

RELEASED_PREFIX = "sem_seg_head."
DETECTRON2_PREFIX = "network."  # what comes before our names in checkpoints that err_seg.d2 writes
WRAPPERS = re.compile(r"^module\.|(?<![^.])_orig_mod\.")  # of DistributedDataParallel, and of torch.compile anywhere
HEADLESS = ("cost_embedding.", "escf.", "gud.")  # how these names began before the head was a module of its own

# from a released name to ours: every pattern that matches is replaced, in this order
RELEASED_NAMES = (
    (r"^clip_model\.visual\.modify_downsample\.0\.", "encoder.hsm.norm."),
    (r"^clip_model\.visual\.modify_downsample\.2\.", "encoder.hsm.conv."),
    (r"^clip_model\.", "encoder.clip."),
    # F4's and C16's projections are number 0 in both
    (r"^decoder\.corr_proj_convs\.(\d)\.0\.", r"head.cost_embedding.convs.\1."),
    (r"^decoder\.low_corr_fusion\.", "head.cost_embedding.fuse."),
    (r"^decoder\.img_guidance_projection_agg\.(\d)\.0\.", r"head.escf.image_guidance.projections.\1.0."),
    (r"^decoder\.low_img_fusion\.", "head.escf.image_guidance.fuse."),
    (r"^decoder\.text_guidance_projection\.0\.", "head.escf.text_guidance.project."),
    (r"^decoder\.aggregator_layers\.(\d+)\.spatial_fusion\.sa\.", r"head.escf.layers.\1.sfm."),
    (r"^decoder\.aggregator_layers\.(\d+)\.class_fusion\.sa\.", r"head.escf.layers.\1.cfm."),
    (r"^(head\.escf\.layers\..+)\.attention\.sr_([kv])\.", r"\1.attention.ssr.conv_\2."),
    (r"^(head\.escf\.layers\..+)\.attention\.norm_([kv])\.", r"\1.attention.ssr.norm_\2."),
    (r"^(head\.escf\.layers\..+)\.mlp\.dwconv\.dwconv\.", r"\1.dwconv."),
    (r"^decoder\.img_guidance_projection_dec\.(\d)\.0\.", r"head.gud.stages.\1.guidance.0."),
    (r"^decoder\.up_decoder1\.", "head.gud.stages.0."),
    (r"^decoder\.up_decoder2\.", "head.gud.stages.1."),
    (r"^decoder\.up_decoder3\.", "head.gud.stages.2."),
    (r"^(head\.gud\.stages\.\d)\.up_conv\.", r"\1.up."),
    (r"^(head\.gud\.stages\.\d)\.textual_fusion\.0\.", r"\1.conv1."),
    (r"^(head\.gud\.stages\.\d)\.textual_fusion\.1\.", r"\1.norm1."),
    (r"^(head\.gud\.stages\.\d)\.textual_fusion\.3\.", r"\1.conv2."),
    (r"^(head\.gud\.stages\.\d)\.textual_fusion\.4\.", r"\1.norm2."),
    (r"^decoder\.head\.", "head.gud.head."),
)


def current_name(name: str) -> str:
    """Translate the name of an entry, from any checkpoint that can be read, into today's name.

    Readable are released checkpoints, detectron2's (``network.``), and those of version 0.1, whose head had no name;
    also if the network was wrapped for several processes (``module.``) or compiled (``_orig_mod.``) when it was saved.
    A name without a counterpart stays as it is.
    """
    name = WRAPPERS.sub("", WRAPPERS.sub("", name))
    if name.startswith(RELEASED_PREFIX):
        renamed = name.removeprefix(RELEASED_PREFIX)
        for pattern, ours in RELEASED_NAMES:
            renamed = re.sub(pattern, ours, renamed)
        return renamed if renamed.startswith(("encoder.", "head.")) else name
    name = name.removeprefix(DETECTRON2_PREFIX)
    return f"head.{name}" if name.startswith(HEADLESS) else name


def current_names(state: Mapping[str, Any]) -> dict[str, Any]:
    """Rename the entries of a dictionary keyed by parameter name; the values stay as they are."""
    return {current_name(str(name)): value for name, value in state.items()}
