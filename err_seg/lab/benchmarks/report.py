"""The benchmark's table, files and plots, with the paper's own figures beside them."""

import math
from collections.abc import Sequence
from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from err_seg.evaluation.results import text_table, write_csv
from err_seg.lab.benchmarks.cases import Case
from err_seg.lab.benchmarks.machine import Machine
from err_seg.lab.benchmarks.measurement import Measurement, percentiles
from err_seg.utils.files import write_json, write_text
from err_seg.visualization.plots import panel_grid, save_figure

AXES = {"num_classes": "T, classes of the vocabulary", "num_kept": "K, classes kept", "size": "S", "batch_size": "B"}
TIMES = ("case", "K", "ms", "ms p10", "ms p90", "a second", "ratio", "ratio p10", "ratio p90")
HEADER = (*TIMES, "GB", "GMAC", "GEMM %", "roofline %")
LEAST_SHARE = 0.001
"""Parts of the network with fewer of the multiply-adds are not listed."""
EXPLANATION = """\
ms: median time of a batch, and 10th and 90th percentile. a second: images, or names of a vocabulary. ratio: to the
group's first row, both timed in turns. GB: peak above the loaded model. GMAC: multiply-adds. GEMM %: the time that
these take in a large matrix product, as a share of the median. roofline %: the same for the sum over all operations of
arithmetic or memory traffic, whichever takes longer; what stays in a cache arrives faster, so it may exceed 100."""
PAPER = """\
The paper's figures, on its own GPU at S = 640; a GFLOP there is a multiply-add

| Table III | A-847 ms | A-847 GFLOPs | A-150 ms | A-150 GFLOPs |
|-----------|---------:|-------------:|---------:|-------------:|
| SAN       |       34 |          120 |       32 |           95 |
| SED       |      196 |          571 |      114 |          291 |
| CAT-Seg   |      552 |         2154 |      369 |         1516 |
| ERR-Seg   |      114 |          348 |       85 |          288 |

| Table X, ESCF | GFLOPs | training memory, GiB |
|---------------|-------:|---------------------:|
| without reductions |  188.1 |                  9.5 |
| one of SSR, CSR | 148.9, 134.6 |           7.8, 5.9 |
| SSR and CSR   |   95.3 |                  4.2 |
"""


def group_title(case: Case) -> str:
    """Say what a group's cases have in common."""
    height, width = (case.size, case.size) if case.kind == "training" else case.image
    images = "" if case.kind == "vocabulary" else f", S = {case.size}, B = {case.batch_size}, images {height}×{width}"
    return f"{case.kind}: {case.config}, T = {case.num_classes}{images}"


def group_table(rows: Sequence[Measurement]) -> str:
    """Lay out a group's rows under its title, and the multiply-adds by part of the network under these."""
    tables = [group_title(rows[0].case), text_table(HEADER, [cells(row) for row in rows])]
    if (load := rows[0].other_load) > 0.05:
        tables.append(f"Disturbed: other processes had {load:.0%} of the processors. Run it again on an idle machine.")
    shares = {part: count / sum(row.macs.values()) for row in rows for part, count in row.macs.items()}
    if len(shares) > 1 and (parts := [part for part, share in shares.items() if share > LEAST_SHARE]):
        counts = [[str(row.case), *(row.macs.get(part, math.nan) / 1e9 for part in parts)] for row in rows]
        tables.append(text_table(["GMAC", *parts], counts))
    return "\n\n".join(tables)


def cells(row: Measurement) -> list[Any]:
    """Return a row of the table."""
    median, low, high = percentiles(row.seconds)
    macs = sum(row.macs.values()) or None
    demands = ((row.memory, 1e-9), (macs, 1e-9), (row.arithmetic_share, 100), (row.roofline_share, 100))
    return [
        str(row.case),
        "-" if row.case.kind == "vocabulary" else f"{row.kept:.1f}",
        *(1e3 * value for value in (median, low, high)),
        (row.case.num_classes if row.case.kind == "vocabulary" else row.case.batch_size) / median,
        *percentiles(row.ratios),
        *(float("nan") if value is None else value * scale for value, scale in demands),
    ]


def machine_text(machine: Machine) -> str:
    """Say what the machine can do at most."""
    rates = ", ".join(f"{rate / 1e9:,.0f} GFLOP/s in {precision}" for precision, rate in machine.flops.items())
    return f"{machine.name}: {rates}; {machine.bandwidth / 1e9:,.1f} GB/s"


def save(rows: Sequence[Measurement], machine: Machine, command: str, output: Path) -> None:
    """Write ``results.json``, ``table.csv``, ``table.md`` and, where T, K, S or B varies, ``plot.png``."""
    output.mkdir(parents=True, exist_ok=True)
    document = {"command": command, "machine": asdict(machine), "rows": [asdict(row) for row in rows]}
    write_json(output / "results.json", document, indent=1)
    header = ["kind", "config", "T", "S", "B", *HEADER]
    lines = [[row.case.kind, *row.case.group, *cells(row)] for row in rows]
    write_csv(output / "table.csv", header, lines)
    tables = [group_table(list(group)) for _, group in groupby(rows, key=lambda row: row.case.group)]
    parts = [f"`{command}`", machine_text(machine), *tables, EXPLANATION, PAPER.strip()]
    write_text(output / "table.md", "\n\n".join(parts) + "\n")
    (output / "plot.png").unlink(missing_ok=True)  # an earlier benchmark's
    if axes := [axis for axis in AXES if len({place(row, axis) for row in rows} - {None}) > 1]:
        save_figure(draw(rows, axes), output / "plot.png")


def place(row: Measurement, axis: str) -> float | None:
    """Return where a row lies on an axis; of K, neither the reference, which keeps its own, nor a predictor."""
    if axis != "num_kept":
        return float(getattr(row.case, axis))
    return None if row.case.is_reference or row.case.predictor else row.kept


def draw(rows: Sequence[Measurement], axes: Sequence[str]) -> Figure:
    """Draw the median time of an image over each axis; bars reach from the 10th to the 90th percentile."""
    figure, panels = panel_grid(len(axes), (5.2, 3.8))
    for panel, axis in zip(panels, axes, strict=True):
        lines: dict[str, list[tuple[float, ...]]] = {}
        for row in rows:
            if (where := place(row, axis)) is not None:
                times = (1e3 * value / row.case.batch_size for value in percentiles(row.seconds))
                lines.setdefault(line_name(row, axis, axes), []).append((where, *times))
        for name, points in lines.items():
            x, median, low, high = np.array(sorted(points)).T
            panel.errorbar(x, median, (median - low, high - median), marker="o", capsize=3, label=name)
        if axis == "num_classes":
            panel.set_xscale("log")
            vocabularies = sorted({row.case.num_classes for row in rows})
            panel.set_xticks(vocabularies, [f"{classes:,}" for classes in vocabularies])
            panel.minorticks_off()
        panel.set_xlabel(AXES[axis])
        panel.set_ylabel("ms" if rows[0].case.kind == "vocabulary" else "ms an image")
        panel.set_ylim(bottom=0)
        panel.grid(alpha=0.3)
        panel.legend(frameon=False, fontsize="small")
    return figure


def line_name(row: Measurement, axis: str, axes: Sequence[str]) -> str:
    """Name the line of a plot that a row belongs to: everything but the axis that the plot is drawn over."""
    others = [
        f"{name[0]} = {getattr(row.case, field)}"
        for field, name in AXES.items()
        if field in axes and field not in (axis, "num_kept")
    ]
    case = str(row.case) if axis != "num_kept" else str(row.case).partition(", ")[2] or "ERR-Seg"
    return ", ".join([case, *others])
