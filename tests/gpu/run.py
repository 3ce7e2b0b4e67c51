"""Check on this machine's GPU what cannot be checked without one, and write a page with the card's name.

    bash scripts/gpu_checks.sh                       on the GPU, within half an hour; the page goes to OUTPUT
    bash scripts/gpu_checks.sh --only compare waiting
    bash scripts/gpu_checks.sh --device cpu          a rehearsal: shortened, without what only CUDA has

Nothing is downloaded: networks and images are the miniature world's. The exit status is 1 where a check failed.
"""

import argparse
import re
import sys
from pathlib import Path

import pytest

from err_seg.utils.device import resolve_device
from err_seg.utils.files import write_text
from tests.gpu.page import Page
from tests.gpu.trial import ROOT, Trial

CHECKS = ("compare", "benchmark", "precisions", "waiting", "profile", "interrupt", "killed", "memory")


def parse_arguments():
    """Read the command line."""
    parser = argparse.ArgumentParser(
        "gpu_checks.sh", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--device", default="cuda", help="a CUDA device, or cpu for a rehearsal (cuda)")
    parser.add_argument("--only", nargs="+", choices=CHECKS, default=CHECKS, metavar="CHECK", help=", ".join(CHECKS))
    parser.add_argument(
        "--output", type=Path, default=Path("output/gpu_checks"), metavar="DIR", help="for data, runs and the page"
    )
    parser.add_argument("--page", type=Path, metavar="FILE", help="default: OUTPUT/<card>.md")
    return parser.parse_args()


def main():
    """Do the checks and write the page; return the exit status."""
    arguments = parse_arguments()
    try:
        trial = Trial(resolve_device(arguments.device), arguments.output.absolute())
        trial.folder.mkdir(parents=True, exist_ok=True)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    page, here = Page(trial, arguments.only), str(ROOT / "tests/gpu")
    # the fixtures and the single thread of the other tests stay away
    options = ["--confcutdir", here, "-c", str(ROOT / "pyproject.toml"), "-p", "no:cacheprovider", "-vv", "--no-header"]
    status = pytest.main([here, *options], plugins=[page])
    card = "rehearsal" if trial.rehearsal else re.sub(r"\W+", "_", trial.facts()["card"].split("×")[-1].strip())
    file = arguments.page or arguments.output / f"{card}.md"
    write_text(file, page.text())
    print(f"Written to {file}")
    return status


if __name__ == "__main__":
    sys.exit(main())
