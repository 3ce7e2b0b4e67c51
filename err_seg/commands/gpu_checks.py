"""Check on this machine's GPU what cannot be checked without one, and write a page with the card's name.

    err-seg gpu_checks                       on the GPU, within half an hour; the page goes to OUTPUT
    err-seg gpu_checks --only compare waiting
    err-seg gpu_checks --device cpu          a rehearsal: shortened, without what only CUDA has

Nothing is downloaded: networks and images are the miniature world's. The exit status is 1 where a check failed.
"""

import argparse
import logging
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from err_seg.commands.options import command_parser

CHECKS = ("compare", "benchmark", "precisions", "waiting", "profile", "interrupt", "killed", "memory")


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = command_parser("gpu_checks", __doc__)
    parser.add_argument("--device", default="cuda", help="a CUDA device, or cpu for a rehearsal (cuda)")
    parser.add_argument("--only", nargs="+", choices=CHECKS, default=CHECKS, metavar="CHECK", help=", ".join(CHECKS))
    parser.add_argument("--output", type=Path, default=Path("output/gpu_checks"), metavar="DIR", help="made anew")
    parser.add_argument("--page", type=Path, metavar="FILE", help="default: OUTPUT/<card>.md")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Do the checks and write the page."""
    arguments = parse_arguments(argv)
    from err_seg.gpu_checks import Trial, run_checks
    from err_seg.utils.device import resolve_device
    from err_seg.utils.files import write_text

    logging.basicConfig(level=logging.WARNING, format="%(name)s: %(message)s")
    try:
        trial = Trial(resolve_device(arguments.device), arguments.output.absolute())
        trial.folder.mkdir(parents=True, exist_ok=True)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    page, passed = run_checks(trial, arguments.only, print)
    card = "rehearsal" if trial.rehearsal else re.sub(r"\W+", "_", trial.facts()["card"].split("×")[-1].strip())
    file = arguments.page or arguments.output / f"{card}.md"
    write_text(file, page)
    print(f"Written to {file}")
    return 0 if passed else 1
