"""Weights on disk: saving our own, and strict, never-unpickling loading of our own and of released checkpoints."""

import json
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from err_seg.files import atomic_write
from err_seg.version import __version__

RELEASED_PREFIX = "sem_seg_head."
DETECTRON2_PREFIX = "network."  # what comes before our names in checkpoints that err_seg.d2 writes
HEADLESS = ("cost_embedding.", "escf.", "gud.")  # how these names began before the head was a module of its own
DIFFERENCES_SHOWN = 8

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


class CheckpointError(ValueError):
    """A checkpoint that cannot be read or does not fit; the message names the file and the differences."""


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

    Readable are released checkpoints, detectron2's (``network.``), and those of version 0.1, whose head had no name.
    """
    name = rename_released(name) if name.startswith(RELEASED_PREFIX) else name.removeprefix(DETECTRON2_PREFIX)
    return f"head.{name}" if name.startswith(HEADLESS) else name


def current_names(state: Mapping[str, Any]) -> dict[str, Any]:
    """Rename the entries of a dictionary keyed by parameter name; the values stay as they are."""
    return {current_name(str(name)): value for name, value in state.items()}


def save_weights(
    model: nn.Module | Mapping[str, Tensor], file: str | Path, metadata: Mapping[str, Any] | None = None
) -> None:
    """Write the model's weights as safetensors, complete or not at all.

    Args:
        model: the model whose state is written, or a state dictionary.
        file: where to write; its folder is made.
        metadata: JSON-able facts to keep beside the weights (configuration, iteration, ...).
    """
    file = Path(file)
    file.parent.mkdir(parents=True, exist_ok=True)
    facts = {"err_seg_version": __version__, **{key: json.dumps(value) for key, value in (metadata or {}).items()}}
    entries = model if isinstance(model, Mapping) else model.state_dict()
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in entries.items()}
    with atomic_write(file) as temporary:
        save_file(state, temporary, metadata=facts)


def load_weights(model: nn.Module, source: str | Path | Mapping[str, Any]) -> None:
    """Load all weights of the model, strictly: the entries and the model's names must be exactly the same.

    Args:
        model: an ``ERRSeg``.
        source: a ``.safetensors`` file of ours, a released (detectron2) ``.pth`` file, or a state dictionary with the
            names of either. Pickled files are read with ``weights_only=True``: nothing in them is executed.

    Raises:
        CheckpointError: the file cannot be read, or entries differ from the model's; lists the differences.
    """
    name = "the state dictionary" if isinstance(source, Mapping) else str(source)
    state = _entries(source) if isinstance(source, Mapping) else read_checkpoint(Path(source))
    model.load_state_dict(fitting_state(model, state, name), strict=True)


def fitting_state(model: nn.Module, state: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return a state dictionary, under names of any kind (:func:`current_name`), as one that fits the model.

    Raises:
        CheckpointError: it does not fit; lists the differences, with ``name`` saying where the entries come from.
    """
    state = current_names(state)
    expected = model.state_dict()
    differences = [f"missing: {key} {tuple(expected[key].shape)}" for key in expected.keys() - state.keys()]
    differences += [f"not in the model: {key}" for key in state.keys() - expected.keys()]
    for key in expected.keys() & state.keys():
        found = state[key]
        if not isinstance(found, Tensor) or found.shape != expected[key].shape:
            shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
            differences.append(f"{key}: the model has {tuple(expected[key].shape)}, the checkpoint {shape}")
    if differences:
        shown = "\n  ".join(sorted(differences)[:DIFFERENCES_SHOWN])
        more = f"\n  and {len(differences) - DIFFERENCES_SHOWN} more" if len(differences) > DIFFERENCES_SHOWN else ""
        raise CheckpointError(
            f"{name} does not fit the model; nothing was loaded. {len(differences)} differences:\n  {shown}{more}\n"
            "Is it a checkpoint of another size (MODEL.CLIP.NAME), or of other MODEL settings?"
        )
    return state


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


def _entries(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """Return a checkpoint's weights under today's names; it may hold other things beside its ``model``."""
    return current_names(checkpoint["model"] if isinstance(checkpoint.get("model"), Mapping) else checkpoint)


def read_checkpoint(file: Path) -> dict[str, Any]:
    """Read the weights in a safetensors or torch file without executing anything in it.

    Returns:
        Today's name (:func:`current_name`) to tensor.

    Raises:
        CheckpointError: as for :func:`read_whole`.
    """
    return _entries(read_whole(file))


def read_whole(file: Path) -> Mapping[str, Any]:
    """Read all that a safetensors or torch file holds, as it is, without executing anything in it.

    Raises:
        CheckpointError: no such file, a damaged one, or a pickle that holds more than tensors and plain values.
    """
    if not file.is_file():
        raise CheckpointError(f"no checkpoint {file}")
    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        loaded = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{file} holds more than tensors and plain values, or is damaged; it was not read, since unpickling could "
            "run any program. Save its 'model' dictionary of tensors alone, best as safetensors"
        ) from error
    except Exception as error:  # a damaged file can make a reader fail in any way
        raise CheckpointError(f"{file} is damaged or not a checkpoint: {_first_line(error)}") from error
    if not isinstance(loaded, Mapping):
        raise CheckpointError(f"{file} holds a {type(loaded).__name__}, not a dictionary of tensors")
    return loaded
