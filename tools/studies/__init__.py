"""Programs that measure what documentation states, on the miniature world: ``python -m tools.studies.words --help``.

Settings are chosen on validation scenes, results are of test scenes. Give a network for each seed::

    err-seg mini train --seeds 0 1 2 --output output/mini
    python -m tools.studies.words --networks output/mini/seed?/model_final.safetensors
"""

import argparse
import shlex
import sys
from pathlib import Path
from typing import Any

import torch

from err_seg.commands.options import positive
from err_seg.utils.files import write_json, write_text


def study_parser(name: str, description: str | None) -> argparse.ArgumentParser:
    """Make the parser of a study, with the folder that results go to."""
    parser = argparse.ArgumentParser(
        f"python -m tools.studies.{name}", description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, default=Path(f"output/studies/{name}"), metavar="DIR")
    return parser


def add_network_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of studies of trained networks: which ones, and on how many scenes."""
    add = parser.add_argument
    add("--networks", nargs="+", default=["mini"], metavar="MODEL", help="names or files, one for each seed (mini)")
    add("--scenes", type=positive, default=80, metavar="N", help="of each split (80)")


def save_study(output: Path, text: str, document: dict[str, Any]) -> None:
    """Print a study's tables, and write them as ``results.md``, and its numbers as ``results.json``."""
    settings = {"command": shlex.join(sys.argv), "threads": torch.get_num_threads()}
    write_json(output / "results.json", {**document, "settings": settings})
    write_text(output / "results.md", text)
    print(text, end="")
