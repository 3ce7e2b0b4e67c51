"""The names of a checkpoint's entries: released, detectron2's and earlier ones, translated into today's."""

import re
from collections.abc import Mapping
from typing import Any

RELEASED_PREFIX = "sem_seg_head."
DETECTRON2_PREFIX = "network."  # what comes before our names in checkpoints that err_seg.d2 writes
WRAPPERS = re.compile(r"^module\.|(?<![^.])_orig_mod\.")  # of DistributedDataParallel, and of torch.compile anywhere
HEADLESS = ("cost_embedding.", "escf.", "gud.")  # how these names began before the head was a module of its own

# released name → ours, first match wins; F4's and C16's projections are number 0 in both
RELEASED_NAMES = (
    (r"clip_model\.visual\.modify_downsample\.0\.", "encoder.hsm.norm."),
    (r"clip_model\.visual\.modify_downsample\.2\.", "encoder.hsm.conv."),
    (r"clip_model\.", "encoder.clip."),
    (r"decoder\.corr_proj_convs\.(\d)\.0\.", r"head.cost_embedding.convs.\1."),
    (r"decoder\.low_corr_fusion\.", "head.cost_embedding.fuse."),
    (r"decoder\.img_guidance_projection_agg\.(\d)\.0\.", r"head.escf.image_guidance.projections.\1.0."),
    (r"decoder\.low_img_fusion\.", "head.escf.image_guidance.fuse."),
    (r"decoder\.text_guidance_projection\.0\.", "head.escf.text_guidance.project."),
    (r"decoder\.img_guidance_projection_dec\.(\d)\.0\.", r"head.gud.stages.\1.guidance.0."),
    (r"decoder\.head\.", "head.gud.head."),
)
RELEASED_FUSION_NAMES = (
    (r"attention\.sr_([kv])\.", r"attention.ssr.conv_\1."),
    (r"attention\.norm_([kv])\.", r"attention.ssr.norm_\1."),
    (r"mlp\.dwconv\.dwconv\.", "dwconv."),
)
RELEASED_STAGE_NAMES = {
    "up_conv": "up",
    "textual_fusion.0": "conv1",
    "textual_fusion.1": "norm1",
    "textual_fusion.3": "conv2",
    "textual_fusion.4": "norm2",
}


def rename_released(name: str) -> str:
    """Translate the name of a released checkpoint's entry into ours; return a name without a counterpart as it is."""
    rest = name.removeprefix(RELEASED_PREFIX)
    if layer := re.fullmatch(r"decoder\.aggregator_layers\.(\d+)\.(spatial|class)_fusion\.sa\.(.+)", rest):
        entry = layer[3]
        for pattern, ours in RELEASED_FUSION_NAMES:
            entry = re.sub("^" + pattern, ours, entry)
        return f"head.escf.layers.{layer[1]}.{'sfm' if layer[2] == 'spatial' else 'cfm'}.{entry}"
    stage = re.fullmatch(r"decoder\.up_decoder(\d)\.(up_conv|textual_fusion\.\d)\.(\w+)", rest)
    if stage and stage[2] in RELEASED_STAGE_NAMES:
        return f"head.gud.stages.{int(stage[1]) - 1}.{RELEASED_STAGE_NAMES[stage[2]]}.{stage[3]}"
    for pattern, ours in RELEASED_NAMES:
        renamed, count = re.subn("^" + pattern, ours, rest)
        if count:
            return renamed
    return name


def current_name(name: str) -> str:
    """Translate the name of an entry, from any checkpoint that can be read, into today's name.

    Readable are released checkpoints, detectron2's (``network.``), and those of version 0.1, whose head had no name;
    also if the network was wrapped for several processes (``module.``) or compiled (``_orig_mod.``) when it was saved.
    """
    name = WRAPPERS.sub("", WRAPPERS.sub("", name))
    name = rename_released(name) if name.startswith(RELEASED_PREFIX) else name.removeprefix(DETECTRON2_PREFIX)
    return f"head.{name}" if name.startswith(HEADLESS) else name


def current_names(state: Mapping[str, Any]) -> dict[str, Any]:
    """Rename the entries of a dictionary keyed by parameter name; the values stay as they are."""
    return {current_name(str(name)): value for name, value in state.items()}
