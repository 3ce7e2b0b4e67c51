"""How weights reach detectron2's checkpointer, which reads torch files alone.

Its way of taking other sources is a handler for paths that begin with a name of their own: ``safetensors:`` here, so
that ``MODEL.WEIGHTS safetensors:output/model_final.safetensors`` works in any program that uses its checkpointer.
"""

import functools
import tempfile
from pathlib import Path
from typing import Any

import torch
from detectron2.utils.file_io import PathHandler, PathManager
from torch import nn

from err_seg.config import ConfigError
from err_seg.models.checkpoint import load_weights, open_checkpoint

PREFIX = "safetensors:"


class SafetensorsHandler(PathHandler):
    """Gives detectron2's ``PathManager`` a torch file with the tensors of a safetensors file."""

    @functools.cached_property
    def _folder(self) -> tempfile.TemporaryDirectory:
        """What is written; removed when the process ends."""
        return tempfile.TemporaryDirectory(prefix="err_seg_")

    def _get_supported_prefixes(self) -> list[str]:
        return [PREFIX]

    def _get_local_path(self, path: str, force: bool = False, **_: Any) -> str:
        copy = Path(self._folder.name) / "weights.pth"  # one at a time: it is read at once
        torch.save({"model": open_checkpoint(Path(path.removeprefix(PREFIX))).weights}, copy)
        return str(copy)


PathManager.register_handler(SafetensorsHandler())


def load_configured(network: nn.Module, weights: str) -> None:
    """Load ``MODEL.WEIGHTS``, where it names any, from wherever detectron2 can fetch it.

    Raises:
        CheckpointError: see :func:`err_seg.models.checkpoint.load_weights`.
    """
    if weights:
        load_weights(network, PathManager.get_local_path(weights))


def readable_weights(weights: str) -> str:
    """Name a file of weights so that detectron2's checkpointer can read it."""
    return PREFIX + weights if weights.endswith(".safetensors") and not weights.startswith(PREFIX) else weights


def checked_weights(weights: str) -> str:
    """Translate detectron2's ``MODEL.WEIGHTS`` back to the name of a file.

    Raises:
        ConfigError: detectron2 could not read it, or would unpickle it.
    """
    if weights.endswith(".safetensors") and not weights.startswith(PREFIX):
        raise ConfigError(f'MODEL.WEIGHTS: detectron2 reads safetensors files as "{PREFIX}{weights}"')
    if weights.endswith((".pkl", ".pickle")):
        raise ConfigError(
            f"MODEL.WEIGHTS: detectron2 would unpickle {weights}, which can run any program; save its tensors as "
            ".safetensors or with torch.save as .pth"
        )
    return weights.removeprefix(PREFIX)
