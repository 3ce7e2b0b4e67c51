"""Draw the paper's figures for your own images, words, data sets and models.

    err-seg figures attention photo.jpg --classes-file ade20k_150 --class sky --point 120 80
    err-seg figures attention-share --datasets ade20k_150_val --num-kept 32 150
    err-seg figures attention-share --mini 64 --model mini
    err-seg figures grid a.jpg b.jpg --classes "dog, grass" --classes "brown dog, white dog, grass"

attention: where SFM looks within the map of a class, with all classes kept and with K of them (Fig. 2).
attention-share: how much of CFM's attention goes to classes that an image does not show (Proposition 1). grid: images
beside the predictions for lists of words (Fig. 8 to 10). More: docs/figures.md.
"""

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path

from err_seg.commands.options import add_model_options, add_words_options, command_parser, positive, reporting_errors

OUTPUT = Path("output/paper_figures")


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = command_parser("figures", __doc__)
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="attention | attention-share | grid")

    attention = kinds.add_parser("attention", allow_abbrev=False)
    add = attention.add_argument
    add("image", metavar="IMAGE")
    add_words_options(attention)
    add("--class", dest="class_name", metavar="NAME", help="(the one predicted at the point)")
    add("--point", type=int, nargs=2, metavar=("X", "Y"), help="in pixels (the middle)")
    add("--num-kept", type=positive, metavar="K", help="what to compare all classes with (the model's)")
    add("--labels", metavar="FILE", help="label map with indices of the words: which ones are present")
    _add_output_file(attention, "attention.png")
    add_model_options(attention)

    share = kinds.add_parser("attention-share", allow_abbrev=False)
    add = share.add_argument
    add("--datasets", nargs="+", metavar="NAME", help="registered data sets")
    add("--mini", type=positive, metavar="N", help="draw N test scenes of the miniature world, too")
    add("--root", metavar="DIR", help="the data sets' root (DATASETS.ROOT)")
    add("--num-kept", type=positive, nargs="+", metavar="K", help="(the model's own, and all)")
    add("--output", type=Path, default=OUTPUT, metavar="DIR", help="(%(default)s)")
    add_model_options(share)

    grid = kinds.add_parser("grid", allow_abbrev=False)
    grid.add_argument("images", nargs="+", metavar="IMAGE")
    words = grid.add_argument_group("columns, in the order given")
    add = words.add_argument
    typed = '"dog, grass"; several times: several columns'
    add("--classes", action="append", type=lambda text: (False, text), metavar="NAMES", help=typed)
    files = ".txt (a class a line), .json, or ade20k_150, ...; several times, too"
    add("--classes-file", dest="classes", action="append", type=lambda text: (True, text), metavar="FILE", help=files)
    add("--truth", nargs="+", metavar="FILE", help="a column of label maps, one an image")
    add("--truth-classes", metavar="FILE", help="their class names, as for --classes-file")
    grid.add_argument("--num-kept", type=positive, metavar="K", help="(the model's own)")
    grid.add_argument("--cell", type=positive, metavar="PIXELS", help="width of a column")
    _add_output_file(grid, "grid.png")
    add_model_options(grid, several=True)

    parser.epilog = "\n".join(kind.format_usage() for kind in kinds.choices.values())
    return parser.parse_args(arguments)


def _add_output_file(parser: argparse.ArgumentParser, name: str) -> None:
    parser.add_argument("--output", type=Path, default=OUTPUT / name, metavar="FILE", help="a PNG file (%(default)s)")
    parser.add_argument("--palette", action="store_true", help="write 256 colours, less than half the bytes")


@reporting_errors(1)
def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command."""
    options = parse_arguments(arguments)
    from err_seg.commands.figure_kinds import KINDS

    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    print(f"Written to {KINDS[options.kind](options)}")
