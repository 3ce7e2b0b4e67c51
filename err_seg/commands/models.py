"""What options name: models, data sets and class names; errors are those of what reads them."""

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from err_seg.commands.options import pinned
from err_seg.config import Config, get_cfg
from err_seg.config.constants import DEFAULT_MODEL
from err_seg.data import SegmentationPairs, get_dataset, load_vocabulary
from err_seg.jobs.label_set import split_names
from err_seg.models import hub
from err_seg.models.build import build_compiled
from err_seg.models.checkpoint import checked_sha256
from err_seg.prediction.contrast import COMMON, NONE
from err_seg.prediction.model import ERRSeg
from err_seg.text.prompts import Vocabulary
from err_seg.text.vocabularies import VOCABULARY_ENDINGS, VocabularySource
from err_seg.utils.device import own_device


def load_model(arguments: argparse.Namespace) -> ERRSeg:
    """Load the model that the options name; with --config-file alone, the weights are those of the configuration."""
    if arguments.config_file and not (arguments.weights or arguments.model):
        _check_nothing_pinned(arguments, "--model or --weights")
        overrides = [*arguments.opts, "MODEL.DEVICE", own_device(arguments.device)]
        overrides += ["TEST.PRECISION", arguments.precision] if arguments.precision else []
        overrides += ["MODEL.IMPORTS", arguments.imports] if arguments.imports else []
        return build_compiled(get_cfg(arguments.config_file, overrides))
    options = load_options(arguments)
    options["config"] = options["config"] or (arguments.model if arguments.weights else None)
    return hub.load(arguments.weights or arguments.model or DEFAULT_MODEL, **options)


def load_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the options that qualify a model as arguments of ``err_seg.load``."""
    return {
        "config": arguments.config_file,
        "overrides": arguments.opts,
        "imports": arguments.imports,
        "device": own_device(arguments.device),
        "precision": arguments.precision,
        **pinned(arguments),
    }


def find_weights(arguments: argparse.Namespace) -> Path | None:
    """Return the file of the weights that --weights names as in :func:`err_seg.load`; ``None`` without it."""
    if arguments.weights is None:
        _check_nothing_pinned(arguments, "--weights")
        return None
    place = pinned(arguments)
    sha256 = place.pop("sha256")
    file = hub.find_weights(arguments.weights, **place).file
    if sha256 is not None:
        checked_sha256(file, sha256)
    return file


def _check_nothing_pinned(arguments: argparse.Namespace, options: str) -> None:
    if given := [f"--{name}" for name, value in pinned(arguments).items() if value is not None]:
        raise ValueError(f"{', '.join(given)}: say which weights, with {options}")


def open_pairs(cfg: Config, names: Iterable[str]) -> list[SegmentationPairs]:
    """Open registered data sets."""
    return [SegmentationPairs(get_dataset(name), cfg.DATASETS.ROOT) for name in names]


def read_contrast(text: str | None) -> VocabularySource | None:
    """Read the value of --contrast: "none", "common", or class names as in --classes or --classes-file."""
    if text is None or text in (NONE, COMMON):
        return text
    return load_vocabulary(text) if text.lower().endswith(VOCABULARY_ENDINGS) else split_names(text)


def read_names(arguments: argparse.Namespace) -> Vocabulary:
    """Return the class names that the options give, if any; typed ones are not checked."""
    if arguments.classes is not None:
        return split_names(arguments.classes)
    return load_vocabulary(arguments.classes_file) if arguments.classes_file else Vocabulary()
