"""What err-seg predict prints when it is done: the classes' areas, and the names of results."""

from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text  # else brackets and colons in names are taken for commands to the terminal

from err_seg.jobs import Report
from err_seg.jobs.result_names import printable
from err_seg.visualization.text import first_synonym

ROWS = 30


def summarize(report: Report, output: Path) -> None:
    """Print which classes were found, and how much of the area they take."""
    if report.done:
        total = sum(report.pixels.values()) + report.unlabeled
        new = " new" if report.skipped else ""  # of the others, nothing is known here
        table = Table("class", title=Text(f"{report.done}{new} images, results in {printable(output)}"))
        table.add_column("images", justify="right")
        table.add_column("share of all pixels", justify="right")
        for name, pixels in report.pixels.most_common(ROWS):
            table.add_row(Text(first_synonym(name)), str(report.images[name]), f"{pixels / total:.1%}")
        if len(report.pixels) > ROWS:
            rest = sum(pixels for _, pixels in report.pixels.most_common()[ROWS:])
            table.add_row(f"{len(report.pixels) - ROWS} more", "", f"{rest / total:.1%}")
        if report.unlabeled:
            table.add_row("none of these", "", f"{report.unlabeled / total:.1%}")
        Console().print(table)
    for source, name in list(report.renamed.items())[:ROWS]:
        print(f"{source}: results are named {name}, since those of another image have the plain name")
    if len(report.renamed) > ROWS:
        print(f"and {len(report.renamed) - ROWS} more; all are in {printable(output)}/manifest*.jsonl")
    if report.done:
        print(f"the network took {report.network} (reading and writing go on meanwhile)")
    print(f"{report.done} done, {report.skipped} were done before, {len(report.problems)} failed")
