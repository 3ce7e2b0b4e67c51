"""What a sweep will run, its table as Markdown, CSV and JSON beside the paper's values, and its plot (Fig. 6 and 7)."""

import os
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from err_seg.config import get_cfg, settings_of
from err_seg.evaluation.results import text_table, write_csv
from err_seg.lab.sweeps.definition import Plot, Sweep, SweepError
from err_seg.lab.sweeps.plan import Run
from err_seg.lab.sweeps.results import (
    BENCHMARKS,
    KEPT,
    MACS,
    MEMORY,
    VariantResult,
    columns_of,
    paper_difference,
    seed_differences,
    verdict,
)
from err_seg.lab.table import mean_text
from err_seg.utils.files import write_json, write_text
from err_seg.visualization.plots import save_figure

DECIDING = "all"
"""The miniature world's column that a difference is judged by."""
REAL_DATA_LEGEND = "mIoU in percent (detectron2's main branch; results.json of each run has both)"


def settings_text(sweep: Sweep, runs: Sequence[Run]) -> str:
    """Say what will be run: the base, what all variants change in it, and what each does."""
    base = dict(settings_of(get_cfg(sweep.base)))
    of_variants: dict[str, dict[str, Any]] = {}
    for run in runs:
        changed = {key: value for key, value in settings_of(run.cfg) if value != base[key] and key != "SEED"}
        of_variants.setdefault(run.variant.name, changed)
    first, *others = of_variants.values()
    shared = {key: value for key, value in first.items() if all(key in o and o[key] == value for o in others)}
    cfg, seeds = runs[0].cfg, dict.fromkeys(run.seed for run in runs)
    lines = [
        f"base {os.path.normpath(sweep.base)}, seeds {', '.join(map(str, seeds))}; the first: {cfg.SOLVER.MAX_ITER} "
        f"iterations of {cfg.SOLVER.IMS_PER_BATCH} images of {', '.join(cfg.DATASETS.TRAIN)}, evaluated on "
        f"{', '.join(cfg.DATASETS.TEST) or 'nothing'}" + (f"; cost with {sweep.cost}" if sweep.cost else ""),
        f"  all variants: {_pairs(shared)}",
    ]
    for name, changed in of_variants.items():
        lines.append(f"  {name}: {_pairs({key: value for key, value in changed.items() if key not in shared})}")
    return "\n".join(lines)


def _pairs(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in settings.items()) or "as the base"


def markdown_table(sweep: Sweep, rows: Sequence[VariantResult]) -> str:
    """Lay the table out.

    On the real data a cell is "measured (paper)". Values of the miniature world cannot be compared with the paper's:
    its tables show the paper's values of the same row in a column, and compare the differences to the first row. With
    ``mean`` there are instead two rows below: the mean of all but the first, and its share of the first.
    """
    columns, reference = columns_of(sweep, rows), rows[0]

    def cell(row: VariantResult, column: str) -> str:
        spec, paper = ".2f" if column in (MACS, MEMORY) else ".1f", ""
        if column in row.paper and not sweep.is_mini:
            paper = f" ({row.paper[column]:.1f})"
        return (mean_text(row.values[column], spec) if row.values.get(column) else "–") + paper

    header = ["", *columns, "seeds"]
    table = [[row.name, *(cell(row, column) for column in columns), str(len(row.seeds) or "not run")] for row in rows]
    if sweep.has_mean:
        means = [mean_of_others(rows, column) for column in columns]
        table.append(["mean of all others", *("–" if mean is None else f"{mean:.1f}" for mean in means), ""])
        pairs = zip(means, map(reference.mean, columns), strict=True)
        shares = [f"{100 * mean / first:.1f} %" if mean and first else "–" for mean, first in pairs]
        table.append([f"of {reference.name}", *shares, ""])
        return text_table(header, table)
    if sweep.is_mini:
        header.append(f"difference ({DECIDING})")
        published = any(row.paper for row in rows)
        if published:
            names = [name for name in BENCHMARKS.values() if any(name in row.paper for row in rows)]
            header += ["paper: " + ", ".join(names), "difference (mean)", "direction"]
        for line, row in zip(table, rows, strict=True):
            differences = [] if row is reference else seed_differences(row, reference, DECIDING)
            line.append(mean_text(differences, "+.1f") if differences else "")
            if published:
                paper = paper_difference(row, reference)
                rounded = "" if paper is None else f"{round(paper, 1) + 0.0:+.1f}"  # never "-0.0"
                line += [_published(row, names), rounded, verdict(row, reference, DECIDING)]
    return text_table(header, table)


def mean_of_others(rows: Sequence[VariantResult], column: str) -> float | None:
    """Average a column over all rows but the first; ``None`` while one of them is not measured."""
    values = [row.mean(column) for row in rows[1:]]
    return statistics.fmean(value for value in values if value is not None) if values and None not in values else None


def _published(row: VariantResult, names: Sequence[str]) -> str:
    """The paper's values of a row, in one cell."""
    values = [f"{row.paper[name]:.1f}" if name in row.paper else "–" for name in names]
    further = [f"{row.paper[name]:g} {name.split()[-1]}" for name in (MACS, MEMORY) if name in row.paper]
    return ", ".join([" ".join(values), *further]) if row.paper else "–"


def save_tables(sweep: Sweep, rows: Sequence[VariantResult], folder: Path, command: str) -> None:
    """Write ``table.md``, ``table.csv``, ``results.json`` (with the command line) and ``plot.png``, if there is one."""
    columns = columns_of(sweep, rows)
    published = {column for row in rows for column in row.paper}
    legend = "" if sweep.is_mini else REAL_DATA_LEGEND + ("; in brackets: the paper's." if published else ".")
    parts = [f"# {sweep.title}", f"`{command}`", markdown_table(sweep, rows), legend, sweep.note]
    write_text(folder / "table.md", "\n\n".join(filter(None, parts)) + "\n")
    header = [cell for c in columns for cell in (c, f"{c} deviation", *[f"{c} paper"] * (c in published))]
    lines = []
    for row in rows:
        own = ((row.mean(c), row.deviation(c), *[row.paper.get(c)] * (c in published)) for c in columns)
        lines.append([row.name, len(row.seeds), *(cell for cells in own for cell in cells)])
    write_csv(folder / "table.csv", ["variant", "seeds", *header], lines)
    document = {
        "title": sweep.title,
        "command": command,
        "rows": [{"name": r.name, "seeds": r.seeds, "figures": r.values, "paper": r.paper} for r in rows],
    }
    write_json(folder / "results.json", document, ensure_ascii=False)
    if sweep.plot is not None:
        save_figure(draw_sweep(sweep, rows), folder / "plot.png")


def draw_sweep(sweep: Sweep, rows: Sequence[VariantResult]) -> Figure:
    """Draw mIoU over the swept setting, a line per column with bars of one standard deviation; dashed: the paper's.

    Raises:
        SweepError: the sweep has no plot, or the swept setting is not a number.
    """
    if sweep.plot is None:
        raise SweepError(f"{sweep.file} has no entry 'plot'")
    places = swept_values(sweep, sweep.plot)
    placed = sorted(zip(places, rows, strict=True), key=lambda pair: pair[0])
    figure = Figure(figsize=(6.5, 4.2), layout="constrained")
    panel = figure.subplots()
    columns = columns_of(sweep, rows)
    for column in (column for column in columns if column not in (MACS, MEMORY) and not column.startswith(KEPT)):
        done = [(x, row.mean(column), row.deviation(column) or 0.0) for x, row in placed if row.values.get(column)]
        published = [(x, row.paper[column]) for x, row in placed if column in row.paper]
        if not done and not published:
            continue
        (line,) = panel.plot([], [], label=column)
        if done:
            x, means, deviations = zip(*done, strict=True)
            panel.errorbar(x, means, deviations, color=line.get_color(), marker="o", capsize=3)
        if published:
            panel.plot(*zip(*published, strict=True), "--", color=line.get_color(), alpha=0.5)
    if kept := [column for column in columns if column.startswith(KEPT)]:
        draw_classes_kept(panel.twinx(), placed, kept)
    if sweep.plot.log:
        nonzero = [place for place in places if place]
        if len(nonzero) == len(places):
            panel.set_xscale("log")
        else:
            panel.set_xscale("symlog", linthresh=min(nonzero), linscale=0.5)
            panel.set_xlim(left=-min(nonzero) / 3)
    panel.set_xticks(sorted(set(places)), [f"{value:g}" for value in sorted(set(places))], rotation=45 * sweep.plot.log)
    panel.minorticks_off()
    panel.set_xlabel(sweep.plot.label)
    panel.set_ylabel("mIoU, %")
    panel.set_title(sweep.title, fontsize="medium")
    panel.grid(alpha=0.3)
    if panel.get_lines():
        panel.legend(frameon=False)
    return figure


def draw_classes_kept(panel: Axes, placed: Sequence[tuple[float, VariantResult]], columns: Sequence[str]) -> None:
    """Draw on an axis of its own, dotted, how many classes are kept per image; of several benchmarks, the mean."""
    measured = [(x, [row.mean(column) or 0.0 for column in columns if row.values.get(column)]) for x, row in placed]
    points = [(x, statistics.fmean(means)) for x, means in measured if means]
    panel.plot(*zip(*points, strict=True), "k:", marker=".", alpha=0.6)
    panel.set_ylabel("classes kept (dotted)")
    panel.set_ylim(bottom=0)


def swept_values(sweep: Sweep, plot: Plot) -> list[float]:
    """Return the swept setting's value in each row.

    Raises:
        SweepError: it is not a number.
    """
    defaults = dict(settings_of(get_cfg(sweep.base)))
    values = []
    for variant in sweep.variants:
        value = {**defaults, **sweep.settings, **variant.settings}.get(plot.x)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise SweepError(f"{sweep.file}: plot: {plot.x} of variant {variant.name!r} is {value!r}, no number")
        values.append(float(value))
    return values
