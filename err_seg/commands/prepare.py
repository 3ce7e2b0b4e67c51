"""Convert the data sets' archives to the label maps that training and evaluation read.

    err-seg prepare coco-stuff ade150 --root /data
    err-seg prepare all --check

Files that are done are kept: an interrupted run is continued by the same command. datasets/README.md shows where each
archive comes from and goes.
"""

import argparse
from collections.abc import Sequence

from err_seg.commands.options import command_parser, positive
from err_seg.config.constants import PREPARED


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = command_parser("prepare", __doc__)
    add = parser.add_argument
    add("names", nargs="+", choices=[*PREPARED, "all"], metavar="NAME", help=f"{', '.join(PREPARED)}, or all")
    add("--root", metavar="DIR", help="folder of the archives (default: $DETECTRON2_DATASETS, else ./datasets)")
    add("--workers", type=positive, metavar="N", help="processes (one a core)")
    add("--force", action="store_true", help="write again what is there")
    add("--strict", action="store_true", help="fail where a count differs from the protocol's")
    add("--check", action="store_true", help="convert nothing; read the converted files and count every class's pixels")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; the exit status is that of :func:`err_seg.data.preparation.command.run`, 2 for wrong usage."""
    options = parse_arguments(argv)
    from err_seg.data.preparation.command import run

    return run(options)
