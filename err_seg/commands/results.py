"""Write a page of the ablations that sweeps have measured on the miniature world, beside the paper's values.

    err-seg results
    err-seg results --sweeps output/sweeps --page docs/results.md

Nothing is trained here; err-seg sweep --mini does that. Sweeps that have not been run are listed with their command.
"""

import logging
from collections.abc import Sequence
from pathlib import Path

from err_seg.commands.options import command_parser, reporting_errors


@reporting_errors(1)
def main(arguments: Sequence[str] | None = None) -> None:
    """Write the page."""
    parser = command_parser("results", __doc__)
    add = parser.add_argument
    add("--sweeps", type=Path, default=Path("output/sweeps"), metavar="DIR", help="what sweeps wrote (%(default)s)")
    add("--page", type=Path, default=Path("docs/results.md"), metavar="FILE", help="(%(default)s)")
    options = parser.parse_args(arguments)
    from err_seg.lab.sweeps.results_page import write_results

    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    write_results(options.sweeps, options.page)
    print(f"Written to {options.page}")
