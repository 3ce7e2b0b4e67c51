"""Options that the commands share: which model, which words, where it runs."""

import argparse

from err_seg import hub
from err_seg.build import build_model
from err_seg.config import get_cfg
from err_seg.data import load_vocabulary
from err_seg.device import PRECISIONS, own_device
from err_seg.inference.words import split_names
from err_seg.modeling.err_seg import ERRSeg

DEFAULT_MODEL = "err-seg-b"


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that :func:`load_model` reads."""
    group = parser.add_argument_group("model")
    names = ", ".join(hub.model_names())
    group.add_argument("--model", metavar="NAME", help=f"{names} ({DEFAULT_MODEL})")
    group.add_argument("--weights", metavar="FILE", help="our own (.safetensors) or a released (.pth) checkpoint")
    group.add_argument("--config-file", metavar="FILE", help="a YAML file, where the weights do not say what they fit")
    group.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps, ... (auto)")
    group.add_argument("--precision", choices=("auto", *PRECISIONS), help="the configuration's, which is mostly fp32")
    group.add_argument("--opts", nargs=argparse.REMAINDER, default=[], metavar="KEY VALUE", help="overrides, last")


def load_model(arguments: argparse.Namespace) -> ERRSeg:
    """Load the model that the options name; a configuration file alone gives the weights that it names.

    Raises:
        ValueError: see :func:`err_seg.load`.
    """
    device = own_device(arguments.device)
    if arguments.config_file and not (arguments.weights or arguments.model):
        overrides = [*arguments.opts, "MODEL.DEVICE", device]
        overrides += ["TEST.PRECISION", arguments.precision] if arguments.precision else []
        return build_model(get_cfg(arguments.config_file, overrides))
    return hub.load(
        arguments.weights or arguments.model or DEFAULT_MODEL,
        config=arguments.config_file or (arguments.model if arguments.weights else None),
        overrides=arguments.opts,
        device=device,
        precision=arguments.precision,
    )


def add_words_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that :func:`read_names` reads."""
    words = parser.add_mutually_exclusive_group(required=True)
    words.add_argument("--classes", metavar="NAMES", help='"cat, dog, grass"; with synonyms "cat; sofa, couch; grass"')
    words.add_argument("--classes-file", metavar="FILE", help=".txt (a class a line), .json, or ade20k_150, ...")


def read_names(arguments: argparse.Namespace) -> tuple[str, ...]:
    """Return the class names that the options give, unchecked where they are typed.

    Raises:
        ValueError, OSError: a file that cannot be read or holds no class names.
    """
    return load_vocabulary(arguments.classes_file) if arguments.classes is None else split_names(arguments.classes)
