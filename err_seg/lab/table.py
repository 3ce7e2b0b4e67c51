"""What tables of the lab share."""

import statistics
from collections.abc import Sequence


def mean_text(values: Sequence[float], spec: str = ".1f") -> str:
    """Write the mean and, of several values, "± standard deviation"; ``spec`` formats both, a sign aside."""
    spread = f" ± {statistics.stdev(values):{spec.lstrip('+')}}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):{spec}}{spread}"


def markdown_row(cells: Sequence[str]) -> str:
    """Write a row of a Markdown table; :func:`err_seg.evaluation.results.text_table` aligns whole tables."""
    return "|" + "|".join(f" {cell} " if cell else " " for cell in cells) + "|"
