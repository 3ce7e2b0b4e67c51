"""A figure of CRM's choice: the scores of the classes, the kept ones marked, and where the kept ones are probable."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image

from err_seg.prediction.segmentation import Segmentation
from err_seg.visualization.plots import DPI, draw_heat, set_class_ticks, set_class_title, thumbnail, to_image

BARS, MAPS, MAP_COLUMNS = 24, 9, 3
AT_CUT = 3  # kept classes drawn right above the cut, if not all are drawn
KEPT_COLOR, DROPPED_COLOR, CUT_COLOR = "#0072b2", "#c8c8c8", "#d55e00"  # told apart with any colour vision


def kept_figure(image: np.ndarray, result: Segmentation) -> Image.Image:
    """Draw what CRM kept of an image (H, W, 3), uint8 RGB, by the ``result`` of its prediction, and why.

    Left: the scores of the best classes kept and dropped, and the cut between. A class scores one for every place of
    the grid where it fits best, a tenth where it fits second best, and so on; the K best are kept. Right: the kept
    classes that are most probable anywhere, with their probabilities over the image in grey.
    """
    small = thumbnail(image)
    maps = result.probabilities.float().cpu()
    order = maps.amax(dim=(1, 2)).argsort(descending=True, stable=True)[:MAPS].tolist()
    rows = max(1, -(-len(order) // MAP_COLUMNS))
    aspect = min(max(small.shape[0] / small.shape[1], 0.3), 2.0)
    bars, cut = bar_rows(result)
    height = max(0.28 * len(bars) + 1.2, rows * (2.3 * aspect + 0.35) + 0.9)
    figure = Figure(figsize=(11.5, height), dpi=DPI, layout="constrained")
    left, right = np.asarray(figure.subfigures(1, 2, width_ratios=(4, 7.5)), dtype=object)
    _draw_scores(left.subplots(), result, bars, cut)

    axes = right.subplots(rows, MAP_COLUMNS, squeeze=False).ravel()
    for axis in axes:
        axis.axis("off")
    for axis, place in zip(axes, order, strict=False):
        heat = draw_heat(axis, small, maps[place].numpy(), highest=1.0)
        set_class_title(axis, result.names[int(result.kept[place])], f"  max {maps[place].max():.2f}")
    bar = right.colorbar(heat, ax=list(axes), location="bottom", shrink=0.5, aspect=40, pad=0.02)
    bar.set_label("probability", fontsize=9)
    return to_image(figure)


def bar_rows(result: Segmentation, most: int = BARS) -> tuple[list[int | str], int]:
    """Choose the classes whose scores are drawn: the best, those on both sides of the cut, and "… 12 more" between.

    Of at most ``most`` rows, a third is for dropped classes, if there are so many.

    Returns:
        Class indices, and text in place of classes that are left out: kept classes first, each side by falling score;
        and the number of rows above the cut.
    """
    scores, kept_classes = result.class_scores.float().cpu(), set(result.kept.tolist())
    order = scores.argsort(descending=True, stable=True).tolist()
    kept: list[int | str] = [index for index in order if index in kept_classes]
    dropped: list[int | str] = [index for index in order if index not in kept_classes]
    below = min(len(dropped), max(most // 3, most - len(kept)))
    above = min(len(kept), most - below)
    if len(kept) > above:
        kept = [*kept[: above - AT_CUT - 1], f"… {len(kept) - above + 1} more kept", *kept[-AT_CUT:]]
    if len(dropped) > below:
        dropped = [*dropped[: below - 1], f"… {len(dropped) - below + 1} more dropped"]
    return [*kept, *dropped], len(kept)


def _draw_scores(axis: Axes, result: Segmentation, rows: list[int | str], cut: int) -> None:
    scores = result.class_scores.float().cpu()
    values = [scores[row].item() if isinstance(row, int) else 0.0 for row in rows]
    colors = [KEPT_COLOR if place < cut else DROPPED_COLOR for place in range(len(rows))]
    axis.barh(range(len(rows)), values, color=colors)
    axis.invert_yaxis()
    set_class_ticks(axis.yaxis, [result.names[row] if isinstance(row, int) else row for row in rows], 10)
    for place, row in enumerate(rows):
        if isinstance(row, int):
            text = f"{values[place]:.1f}" if values[place] >= 0.05 or values[place] == 0 else "< 0.1"
            axis.text(values[place], place, f" {text}", va="center", fontsize=8, color="#505050")
    axis.set_xscale("function", functions=(np.sqrt, np.square))  # scores of 100 and of 0.1 are both worth seeing
    axis.set_xlim(0, max(1.4 * float(scores.max()), 1e-3))
    axis.xaxis.set_major_locator(MaxNLocator(4))
    axis.margins(y=0.01)
    axis.spines[["top", "right"]].set_visible(False)
    axis.set_xlabel("CRM score (grid places, √ scale)", fontsize=9)
    total, num_kept = len(result.names), len(result.kept)
    if num_kept == total:
        axis.set_title(f"all {total} classes kept", fontsize=10)
        return
    share = max(0.0, 1 - float(scores[result.kept.cpu()].sum() / scores.sum().clamp(min=1e-6)))
    dropped = f"{total - num_kept} dropped (grey), {share:.1%} of all scores"
    axis.set_title(f"{num_kept} of {total} classes kept (blue)\n{dropped}", fontsize=9)
    axis.axhline(cut - 0.5, color=CUT_COLOR, linestyle="--", linewidth=1)
    style: dict[str, Any] = {"ha": "right", "va": "bottom", "fontsize": 9, "color": CUT_COLOR}
    axis.text(1, cut - 0.5, "cut", transform=axis.get_yaxis_transform(), **style)
