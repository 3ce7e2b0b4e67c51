"""What several commands share: options, and how errors are reported."""

import argparse
import functools
import os
import re
import sys
from collections.abc import Callable, Sequence
from itertools import takewhile
from os.path import expanduser
from typing import Any

from err_seg.config.constants import DEFAULT_MODEL, MODEL_NAMES, PRECISIONS
from err_seg.config.defaults import KEYS
from err_seg.config.habits import option_hint
from err_seg.utils.errors import RunError, TrainingInterrupted


class _Parser(argparse.ArgumentParser):
    """Takes values that begin with "~" as a shell does, and explains what is written as for other programs."""

    def _parse_known_args(self, arg_strings: list[str], *others: Any) -> Any:
        self._explain_habits(arg_strings)
        return super()._parse_known_args(arg_strings, *others)

    def _get_values(self, action: argparse.Action, arg_strings: list[str]) -> Any:
        return super()._get_values(action, [expanduser(text) for text in arg_strings])

    def _explain_habits(self, args: Sequence[str]) -> None:
        """Exit with an error at an option of another program, and at names that should have been one argument."""
        if self._subparsers:  # its commands have the options
            return
        actions = self._option_string_actions
        known = {*actions, *(str(action.metavar) for action in self._actions)}
        known |= KEYS.keys() if "KEY VALUE" in known else set()
        args = [part for text in args for part in (text.split("=", 1) if text.startswith("--") else [text])]
        for place, option in enumerate(args, start=1):
            if option.startswith("--") and option not in known and (hint := option_hint(option, known)):
                self.error(f"there is no {option}; use {hint}")
            if option in actions and str(actions[option].metavar).startswith("NAMES"):
                names = [*args[place : place + 1], *takewhile(_is_word, args[place + 1 :])]
                if len(names) > 1:
                    joined = ", ".join(names)
                    self.error(f'no file {names[1]!r}; names are one text, separated by commas: {option} "{joined}"')


def _is_word(text: str) -> bool:
    """Whether an argument is rather a class name than an option, a file, a pattern, an address or a model."""
    is_place = re.search(r"^[-~]|[/\\*?\[]|\.\w{1,5}$", text) or text in MODEL_NAMES
    return not is_place and not os.path.lexists(text)


def command_parser(name: str, description: str | None) -> argparse.ArgumentParser:
    """Make the parser of ``err-seg NAME``, described by its module's docstring; every command begins with this.

    Standard streams that are missing, as under pythonw and in services, lead nowhere from then on.
    """
    for stream, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, stream) is None:
            setattr(sys, stream, open(os.devnull, mode))  # noqa: SIM115  # stays open
    return _Parser(
        prog=f"err-seg {name}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def complain(message: object, status: int) -> int:
    """Print an error and return the exit status."""
    print(f"error: {message}", file=sys.stderr)
    return status


def reporting_errors(status: int, interrupted: str = "") -> Callable[[Callable[..., int | None]], Callable[..., int]]:
    """Make a command's ``main`` report in one line what stops it, and return 0 where it returns nothing.

    It returns ``status`` for wrong input and failing files, 128 + the signal's number for training that was asked to
    stop, and 130 for Ctrl-C, if ``interrupted`` says how to continue.
    """

    def decorate(main: Callable[..., int | None]) -> Callable[..., int]:
        @functools.wraps(main)
        def reporting(*arguments: Any, **options: Any) -> int:
            try:
                return main(*arguments, **options) or 0
            except TrainingInterrupted as interruption:
                print(interruption, file=sys.stderr)
                return interruption.status
            except (ValueError, OSError, RunError) as error:
                return complain(error, status)
            except KeyboardInterrupt:
                if not interrupted:
                    raise
                print(f"interrupted; {interrupted}", file=sys.stderr)
                return 130

        return reporting

    return decorate


def positive(text: str) -> int:
    """Read a number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of at least 1")
    return int(text)


def add_model_options(parser: argparse.ArgumentParser, *, several: bool = False, positional: bool = False) -> None:
    """Add the options that say which model, or with ``several`` which models, and where it runs.

    With ``positional``, the model is no option but the first argument.
    """
    names, group = ", ".join(MODEL_NAMES), parser.add_argument_group("model")
    if positional:
        files = f"{names}, USER/REPO of the Hugging Face hub, or a file of weights"
        parser.add_argument("model", metavar="MODEL", help=files)
    elif several:
        files = f"{names}, or a file of weights; several times: columns for each ({DEFAULT_MODEL})"
        group.add_argument("--model", action="append", metavar="NAME", help=files)
    else:
        files = f"{names}, or USER/REPO of the Hugging Face hub ({DEFAULT_MODEL})"
        group.add_argument("--model", metavar="NAME", help=files)
        group.add_argument("--weights", metavar="FILE", help="our own (.safetensors) or a released (.pth) checkpoint")
    add = group.add_argument
    add("--config-file", metavar="FILE", help="a YAML file, for weights that do not hold their configuration")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps, ... (auto)")
    add("--precision", choices=PRECISIONS, help="default: the configuration's, usually fp32")
    add("--opts", nargs="*", default=[], metavar="KEY VALUE", help="overrides, last")
    add_import_option(group)
    if not several:
        add_pinning_options(parser)


def add_import_option(parser: argparse._ActionsContainer) -> None:
    """Add the option that names the packages of a network's own parts."""
    text = "a package that the model needs (MODEL.IMPORTS); several times: several packages"
    parser.add_argument("--import", dest="imports", action="append", default=[], metavar="PACKAGE", help=text)


def add_pinning_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say exactly which weights; :func:`pinned` reads them."""
    group = parser.add_argument_group("exact weights", "a released model is else fetched from the authors' repository")
    group.add_argument("--repository", metavar="USER/REPO", help="on the Hugging Face hub")
    group.add_argument("--revision", metavar="COMMIT", help="of the repository, or a branch or tag")
    group.add_argument("--filename", metavar="PATH", help="in the repository")
    group.add_argument("--sha256", metavar="DIGITS", help="of the file, checked before it is loaded")


def pinned(arguments: argparse.Namespace) -> dict[str, str | None]:
    """Return the options of :func:`add_pinning_options`, where a command has them, as arguments of ``err_seg.load``."""
    return {name: getattr(arguments, name, None) for name in ("repository", "revision", "filename", "sha256")}


def add_words_options(parser: argparse.ArgumentParser, *, required: bool = True) -> None:
    """Add the options that name the classes."""
    words = parser.add_mutually_exclusive_group(required=required)
    typed = '"cat, dog, grass"; with synonyms "cat; sofa, couch; grass"; a vocabulary by name: "ade150, my word"'
    words.add_argument("--classes", metavar="NAMES", help=typed)
    words.add_argument("--classes-file", metavar="FILE", help=".txt (a class a line), .json, .yaml, or ade150, ...")
