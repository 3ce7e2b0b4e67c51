"""The miniature world's table and result file, over one seed or several."""

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from err_seg.utils.files import write_json

Rows = Mapping[str, Mapping[str, float]]
COLUMNS = {"seen": "seen", "unseen": "unseen", "all": "all", "ms": "ms / image", "fusion ms": "ESCF + GUD ms"}

TABLE_WIDTH = 110


def mean_and_deviation(runs: Sequence[Rows]) -> dict[str, dict[str, tuple[float, float]]]:
    """Average each figure over the seeds: row to figure to (mean, standard deviation), the latter 0 for one seed."""
    return {
        row: {
            figure: (statistics.mean(values), statistics.stdev(values) if len(values) > 1 else 0.0)
            for figure in figures
            for values in [[run[row][figure] for run in runs]]
        }
        for row, figures in runs[0].items()
    }


def print_table(runs: Sequence[Rows], seeds: Sequence[int]) -> None:
    """Print the table: mIoU in percent over seen, unseen and all classes, and milliseconds."""
    spread = f", mean ± standard deviation of seeds {', '.join(map(str, seeds))}" if len(runs) > 1 else ""
    table = Table(title=f"mIoU on the test scenes{spread}", box=box.SIMPLE_HEAD, title_justify="left")
    table.add_column("", no_wrap=True)
    for heading in COLUMNS.values():
        table.add_column(heading, justify="right")
    for row, figures in mean_and_deviation(runs).items():
        cells = []
        for figure in COLUMNS:
            mean, deviation = figures.get(figure, (float("nan"), 0.0))
            text = "" if figure not in figures else f"{mean:.1f}"
            cells.append(f"{text} ± {deviation:.1f}" if text and len(runs) > 1 else text)
        table.add_row(row, *cells)
    console = Console()
    console.width = max(console.width, TABLE_WIDTH)  # narrower, it would lose what tells the rows apart
    console.print(table)


def save_report(runs: Sequence[Rows], seeds: Sequence[int], settings: Mapping[str, object], file: Path) -> None:
    """Write every figure of every seed, their mean and standard deviation, and what they depend on, as JSON."""
    summary = {
        row: {figure: {"mean": mean, "stdev": deviation} for figure, (mean, deviation) in figures.items()}
        for row, figures in mean_and_deviation(runs).items()
    }
    document = {
        "summary": summary,
        "runs": [{"seed": seed, "rows": rows} for seed, rows in zip(seeds, runs, strict=True)],
        "settings": settings,
    }
    write_json(file, document)
