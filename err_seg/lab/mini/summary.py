"""The table and the result file of ``err-seg mini``, over one seed or several."""

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from err_seg.lab.table import mean_text
from err_seg.utils.files import write_json

Rows = Mapping[str, Mapping[str, float]]
COLUMNS = {"seen": "seen", "unseen": "unseen", "all": "all", "ms": "ms / image", "fusion ms": "ESCF + GUD ms"}

TABLE_WIDTH = 110


def summarize(runs: Sequence[Rows]) -> dict[str, dict[str, dict[str, float]]]:
    """Average each metric over the seeds: row to metric to "mean" and "stdev", the latter 0 for one seed."""
    summary: dict[str, dict[str, dict[str, float]]] = {}
    for row, metrics in runs[0].items():
        summary[row] = {}
        for metric in metrics:
            values = [run[row][metric] for run in runs]
            deviation = statistics.stdev(values) if len(values) > 1 else 0.0
            summary[row][metric] = {"mean": statistics.mean(values), "stdev": deviation}
    return summary


def print_table(runs: Sequence[Rows], seeds: Sequence[int]) -> None:
    """Print the table: mIoU in percent over seen, unseen and all classes, and milliseconds."""
    spread = f", mean ± standard deviation of seeds {', '.join(map(str, seeds))}" if len(runs) > 1 else ""
    table = Table(title=f"mIoU on the test scenes{spread}", box=box.SIMPLE_HEAD, title_justify="left")
    table.add_column("", no_wrap=True)
    for heading in COLUMNS.values():
        table.add_column(heading, justify="right")
    for row, metrics in runs[0].items():
        cells = [mean_text([run[row][metric] for run in runs]) if metric in metrics else "" for metric in COLUMNS]
        table.add_row(row, *cells)
    console = Console()
    console.width = max(console.width, TABLE_WIDTH)  # narrower, it would lose what tells the rows apart
    console.print(table)


def save_report(runs: Sequence[Rows], seeds: Sequence[int], settings: Mapping[str, object], file: Path) -> None:
    """Write every metric of every seed, their mean and standard deviation, and what they depend on, as JSON."""
    rows = [{"seed": seed, "rows": rows} for seed, rows in zip(seeds, runs, strict=True)]
    write_json(file, {"summary": summarize(runs), "runs": rows, "settings": settings})
