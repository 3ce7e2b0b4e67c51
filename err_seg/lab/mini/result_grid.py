"""An image grid to look at: scenes beside their truth and what was predicted, with the classes' names."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from err_seg.mini.vocabulary import UNSEEN, VOCABULARY
from err_seg.visualization.colors import class_colors
from err_seg.visualization.grid import GridRow, fitting_size, lay_out
from err_seg.visualization.legend import FAINT, INK, Entry

Labels = NDArray[np.int64]

NOTE = "(new): a class that training never showed. Gray: predicted, but not in the image."


def prediction_grid(
    images: Sequence[NDArray[np.uint8]], truths: Sequence[Labels], predictions: Mapping[str, Sequence[Labels]]
) -> Image.Image:
    """Draw one row per scene: the image, the truth, one column for each way of predicting, and a legend below.

    Args:
        images: scenes (H, W, 3) uint8 RGB.
        truths: their label maps (H, W), indices into ``VOCABULARY``.
        predictions: title of a column to the label maps predicted.

    Returns:
        The grid; classes that training did not see are marked "new" in the legend.
    """
    colors = class_colors(VOCABULARY)
    rows = []
    for i, (image, truth) in enumerate(zip(images, truths, strict=True)):
        maps = [truth, *(column[i] for column in predictions.values())]
        size = fitting_size((image.shape[1], image.shape[0]))
        panels = [
            Image.fromarray(pixels).resize(size, Image.Resampling.NEAREST)
            for pixels in [image, *(colors[labels] for labels in maps)]
        ]
        rows.append(GridRow(panels, [_legend(maps, colors)]))
    return lay_out([[title] for title in ("image", "truth", *predictions)], rows, NOTE)


def _legend(maps: Sequence[Labels], colors: NDArray[np.uint8]) -> list[Entry]:
    """List every class that any of the maps shows, the truth's first."""
    entries = []
    for index in _shown_classes(maps):
        red, green, blue = colors[index].tolist()
        name = VOCABULARY[index] + (" (new)" if index in UNSEEN else "")
        entries.append(Entry((red, green, blue), name, ink=INK if (maps[0] == index).any() else FAINT))
    return entries


def _shown_classes(maps: Sequence[Labels], least: float = 0.02) -> list[int]:
    """Classes of the truth, then those of the predictions with at least a share of the pixels worth naming."""
    shown = np.unique(maps[0]).tolist()
    for labels in maps[1:]:
        values, counts = np.unique(labels, return_counts=True)
        shown += [v for v, n in zip(values.tolist(), counts, strict=True) if n >= least * labels.size]
    return list(dict.fromkeys(shown))
