"""What tables and figures of the lab share."""

import statistics
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter


def mean_text(values: Sequence[float], spec: str = ".1f") -> str:
    """Write the mean and, of several values, "± standard deviation"; ``spec`` formats both, a sign aside."""
    spread = f" ± {statistics.stdev(values):{spec.lstrip('+')}}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):{spec}}{spread}"


def mean_and_stdev(values: Sequence[float]) -> dict[str, float]:
    """Return "mean" and "stdev" of values, the latter 0 for one value."""
    return {"mean": statistics.fmean(values), "stdev": statistics.stdev(values) if len(values) > 1 else 0.0}


def duration_text(seconds: float) -> str:
    """Write how long something took, as "5 min 02 s"."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s"


def images_text(count: int) -> str:
    """Write a number of images in words."""
    return "1 image" if count == 1 else f"{count:,} images"


def finish_shares(panel: Axes) -> None:
    """Let an axis of shares, 0..1, show percentages and a grid."""
    panel.set_ylim(0, 1.02)
    panel.yaxis.set_major_formatter(PercentFormatter(1))
    panel.grid(alpha=0.3)
