"""Models by name or from a file: ``err_seg.load("err-seg-b")``, ``err_seg.load("model_final.safetensors")``."""

import json
import logging
import os
import re
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import open_clip
import torch
import yaml

from err_seg.config import Config, get_cfg, settings_of
from err_seg.config.habits import explaining_habits
from err_seg.config.loading import override_pairs
from err_seg.modeling.clip import CUSTOM_CLIPS
from err_seg.models.build import build_compiled
from err_seg.models.checkpoint import Checkpoint, CheckpointError, HubError, open_checkpoint, reason_of
from err_seg.models.hub_files import MODELS, find_weights, kind_of
from err_seg.plugins import import_packages, imported_packages
from err_seg.prediction.model import ERRSeg
from err_seg.utils.fingerprint import WeightsSource
from err_seg.utils.messages import listed
from err_seg.utils.validation import ArgumentError, check_text

logger = logging.getLogger(__name__)

IMPORTS = "MODEL.IMPORTS"


@explaining_habits
def load(
    model: str | os.PathLike[str],
    *,
    config: str | os.PathLike[str] | None = None,
    overrides: Sequence[Any] = (),
    imports: Sequence[str] = (),
    device: str | torch.device = "auto",
    precision: str | None = None,
    sha256: str | None = None,
    repository: str | None = None,
    filename: str | None = None,
    revision: str | None = None,
) -> ERRSeg:
    """Load a model in evaluation mode, ready to predict; its ``source`` says which file that was.

    Args:
        model: a name of ``MODELS`` (fetched once, then found in the cache without a network), or a file of
            weights: ours (``.safetensors``) or a released one (``.pth``); or a folder, or "user/repo" on the Hugging
            Face hub, of which the only ERR-Seg network is taken. Nothing in a file is executed.
        config: a name of ``MODELS``, a YAML file or the name of a shipped one; by default the one
            stored in the file itself (training stores its configuration there), else that of the released model whose
            width the weights have.
        overrides: KEY VALUE pairs that override the configuration.
        imports: packages that the network needs (``MODEL.IMPORTS``). A file of weights only says which these are: none
            is imported unless it is named here, in ``overrides`` or in ``config``.
        device: "auto", or a torch device.
        precision: "fp32", "fp16", "bf16" or "auto" (bf16 or fp16 on CUDA, else fp32); ``None``: the configuration's.
        sha256: the file's checksum in hexadecimal digits, to be checked before it is loaded.
        repository: another repository on the Hugging Face hub from which to fetch a named model.
        filename: the file in the repository or folder; by default the only one that holds this model, by its tensors.
        revision: branch, tag or commit of the repository.

    Raises:
        ArgumentError: an argument is no text, or blank, or ``sha256`` is no checksum.
        HubError: an unknown name, no such file, no network, several candidates, or the wrong checksum.
        ConfigError: the configuration cannot be used.
        CheckpointError: the weights cannot be read or do not fit; lists the differences.
    """
    place = {"sha256": sha256, "repository": repository, "filename": filename, "revision": revision}
    return build_compiled(*read(model, overrides, device, imports, config=config, precision=precision, **place))


def read(
    model: str | os.PathLike[str],
    overrides: Sequence[Any] = (),
    device: str | torch.device = "auto",
    imports: Sequence[str] = (),
    **options: str | os.PathLike[str] | None,
) -> tuple[Config, Checkpoint]:
    """Read a model's configuration and weights without building it; arguments and errors are those of :func:`load`."""
    name = check_text("model", model)
    given = {option: check_text(option, value) for option, value in options.items() if value is not None}
    config, precision, sha256 = (given.pop(option, None) for option in ("config", "precision", "sha256"))
    if sha256 is not None and not re.fullmatch(r"[0-9a-fA-F]{64}", sha256.strip()):
        raise ArgumentError(f"sha256 must be 64 hexadecimal digits, not {sha256!r}")
    device = str(device) if isinstance(device, torch.device) else check_text("device", device)
    pairs = [part for pair in override_pairs(overrides) for part in pair]
    names = [imports] if isinstance(imports, str) else imports
    if not isinstance(names, (list, tuple)):
        raise ArgumentError(f"imports must be a list of packages, not {imports!r}")
    pairs += [IMPORTS, [check_text("imports", package) for package in names]] if names else []
    settings = [*pairs, "MODEL.DEVICE", device, *(("TEST.PRECISION", precision) if precision else ())]
    found = find_weights(name, **given)
    settings += ["MODEL.WEIGHTS", str(found.file)]
    config = name if config is None and name in MODELS else config
    cfg = None if config is None else get_cfg(config_of(config), settings)
    weights = open_checkpoint(found.file, sha256)
    if cfg is None:
        base, stored = settings_in(weights)
        if base is None:
            _compare_settings(found.file, stored)
            named = get_cfg(None, [part for pair in override_pairs(pairs) if pair[0] == IMPORTS for part in pair])
            packages = packages_for(weights, dict(override_pairs(stored)), named.MODEL.IMPORTS)
            settings += [IMPORTS, packages] if packages else []
        cfg = get_cfg(base, [*stored, *settings])
    if found.filename:
        place = WeightsSource(found.filename, weights.source.sha256, found.repository, found.revision)
        weights = replace(weights, source=place)
    return cfg, weights


def config_of(name: str | os.PathLike[str]) -> str:
    """Return the shipped configuration of a named model; any other name is returned as it is, for :func:`get_cfg`."""
    return MODELS[os.fspath(name)].config if os.fspath(name) in MODELS else os.fspath(name)


def settings_in(weights: Checkpoint) -> tuple[str | None, list[Any]]:
    """Find the configuration for weights: the one stored in their file, else the one that the tensors' width tells.

    Returns a shipped configuration to start from, if any, and KEY VALUE pairs that override it.

    Raises:
        CheckpointError: the configuration cannot be read, or names a CLIP that would be fetched from elsewhere.
        HubError: neither way finds one.
    """
    text, file = weights.metadata.get("config"), weights.source.file
    if text is None:
        kind = kind_of({name: tuple(getattr(value, "shape", ())) for name, value in weights.weights.items()})
        if kind not in MODELS:
            raise HubError(
                f"{file} does not say which network it belongs to ({kind}); give its configuration: a YAML file, or "
                f"one of {', '.join(MODELS)}"
            )
        return MODELS[kind].config, []
    try:
        config = yaml.safe_load(json.loads(text))
        config = {name: config[name] for name in ("MODEL", "INPUT", "EXTRA") if name != "EXTRA" or name in config}
        pairs = list(settings_of(config))  # not those of training
    except (ValueError, TypeError, KeyError, yaml.YAMLError) as error:
        raise CheckpointError(f"{file}: the configuration stored in it cannot be read; give one: {error}") from error
    clip = str(dict(pairs).get("MODEL.CLIP.NAME", "mini"))
    # a file from elsewhere may name a JSON file of this machine, which holds sizes, but nothing that is fetched
    if clip not in (*CUSTOM_CLIPS, *open_clip.list_models()) and not re.fullmatch(r"(?!//|\\)(\w:)?[^:]*\.json", clip):
        raise CheckpointError(
            f"{file}: the configuration stored in it names the CLIP {clip!r} (MODEL.CLIP.NAME), which did not come "
            "with err_seg or open_clip. If you trust it, give a configuration with that name (config=, --config-file)"
        )
    # a file from elsewhere may decide whether there is a cache, but not where this machine writes it
    kept = (pair for pair in pairs if pair[0] != "MODEL.TEXT.CACHE_DIR" or pair[1] == "none")
    return None, [part for pair in kept for part in pair]


def packages_for(weights: Checkpoint, stored: Mapping[str, Any], named: Sequence[str]) -> list[str]:
    """List the packages of a stored configuration and those that the user names, which must include the former.

    Raises:
        CheckpointError: the weights need a package that is neither named nor imported already, or do not say which.
    """
    needed, versions = stored.get(IMPORTS, []), {}
    if not isinstance(needed, list) or not all(isinstance(name, str) for name in needed):
        raise CheckpointError(
            f"{weights.source.file}: in the configuration stored in it {IMPORTS} is {needed!r}, expected a list of "
            "names; give another configuration (config=, --config-file)"
        )
    with suppress(ValueError, TypeError):
        versions = dict(json.loads(weights.metadata.get("packages", "{}")))
    if missing := [name for name in needed if name not in {*named, *sys.modules}]:
        shown = listed(f"{name} {versions.get(name, '')}".strip() for name in missing)
        raise CheckpointError(
            f"{weights.source.file} needs packages that are not imported: {shown}. If you trust them, install them and "
            f"name them: err_seg.load(..., imports={missing!r}), or --import {' --import '.join(missing)}"
        )
    import_packages(needed)
    present = imported_packages()
    for name in needed:
        if versions.get(name, present.get(name)) != present.get(name):
            logger.warning("%s was written with %s %s", weights.source.file, name, versions[name])
    return list(dict.fromkeys([*needed, *named]))


def _compare_settings(file: Path, stored: Sequence[Any]) -> None:
    """Warn if the ``config.json`` beside a file of weights differs from the configuration that is stored in it."""
    beside, counts = file.with_name("config.json"), dict(zip(stored[::2], stored[1::2], strict=True))
    try:
        written = settings_of(json.loads(beside.read_text(encoding="utf-8")))
        differing = [f"{key} {value} (counts: {counts.get(key)})" for key, value in written if value != counts.get(key)]
    except FileNotFoundError:
        return
    except (OSError, ValueError, AttributeError) as error:
        differing = [reason_of(error)]
    if differing:
        logger.warning(
            "%s differs from the configuration in %s, which alone counts: %s; to change a setting, override it "
            "(overrides=, --opts)",
            *(beside, file.name, listed(differing)),
        )
