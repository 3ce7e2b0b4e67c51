"""mIoU over the swept setting: the paper's Fig. 6 and 7, and any other sweep with a plot."""

import statistics
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from err_seg.config import get_cfg, settings_of
from err_seg.lab.sweeps.definition import Plot, Sweep, SweepError
from err_seg.lab.sweeps.results import KEPT, MACS, MEMORY, VariantResult
from err_seg.lab.sweeps.tables import columns_of


def draw_sweep(sweep: Sweep, rows: Sequence[VariantResult]) -> Figure:
    """Draw mIoU over the swept setting, a line per column with bars of one standard deviation; dashed: the paper's.

    Raises:
        SweepError: the sweep has no plot, or the swept setting is not a number.
    """
    if sweep.plot is None:
        raise SweepError(f"{sweep.file} has no entry 'plot'")
    places = swept_values(sweep, sweep.plot)
    order = sorted(range(len(rows)), key=places.__getitem__)
    figure = Figure(figsize=(6.5, 4.2), layout="constrained")
    panel = figure.subplots()
    columns = columns_of(sweep, rows)
    for column in (column for column in columns if column not in (MACS, MEMORY) and not column.startswith(KEPT)):
        done = [i for i in order if rows[i].mean(column) is not None]
        published = [i for i in order if column in rows[i].paper]
        if not done and not published:
            continue
        (line,) = panel.plot([], [], label=column)
        if done:
            panel.errorbar(
                [places[i] for i in done],
                [rows[i].mean(column) or 0.0 for i in done],
                [rows[i].deviation(column) or 0.0 for i in done],
                color=line.get_color(),
                marker="o",
                capsize=3,
            )
        if published:
            values = [rows[i].paper[column] for i in published]
            panel.plot([places[i] for i in published], values, "--", color=line.get_color(), alpha=0.5)
    if kept := [column for column in columns if column.startswith(KEPT)]:
        draw_classes_kept(panel.twinx(), rows, places, kept)
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


def draw_classes_kept(
    panel: Axes, rows: Sequence[VariantResult], places: Sequence[float], columns: Sequence[str]
) -> None:
    """Draw on an axis of its own, dotted, how many classes are kept per image; of several benchmarks, the mean."""
    means = [[row.mean(column) for column in columns] for row in rows]
    points = sorted(
        (place, statistics.fmean(known))
        for place, values in zip(places, means, strict=True)
        if (known := [value for value in values if value is not None])
    )
    panel.plot([x for x, _ in points], [y for _, y in points], "k:", marker=".", alpha=0.6)
    panel.set_ylabel("classes kept (dotted)")
    panel.set_ylim(bottom=0)


def swept_values(sweep: Sweep, plot: Plot) -> list[float]:
    """Return the swept setting's value in each row.

    Raises:
        SweepError: it is not a number.
    """
    values, base = [], dict(settings_of(get_cfg(sweep.base)))
    for variant in sweep.variants:
        value = {**base, **sweep.settings, **variant.settings}.get(plot.x)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise SweepError(f"{sweep.file}: plot: {plot.x} of variant {variant.name!r} is {value!r}, no number")
        values.append(float(value))
    return values
