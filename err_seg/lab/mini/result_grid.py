"""An image grid to look at: scenes beside their truth and what was predicted, with the classes' names."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from err_seg.config import Config
from err_seg.data import SegmentationPairs, get_dataset
from err_seg.data.image_sources import image_to_tensor
from err_seg.lab.mini.evaluation import cost_map_labels
from err_seg.mini.vocabulary import UNSEEN, VOCABULARY
from err_seg.prediction.model import ERRSeg
from err_seg.utils.images import save_image
from err_seg.visualization.colors import class_colors
from err_seg.visualization.grid import GridRow, fitting_size, lay_out
from err_seg.visualization.legend import FAINT, INK, Entry
from err_seg.visualization.overlay import area_shares

Labels = NDArray[np.int64]

LEAST_AREA = 0.02
NOTE = "(new): a class that training never showed. Gray: predicted, but not in the image."


def draw_grid(cfg: Config, model: ERRSeg, num_scenes: int, file: Path) -> None:
    """Write the image grid of the first scenes of the test split."""
    pairs = SegmentationPairs(get_dataset(cfg.DATASETS.TEST[0]), cfg.DATASETS.ROOT)
    samples = [pairs[index] for index in range(min(num_scenes, len(pairs)))]
    images, truths = [sample.image for sample in samples], [sample.label for sample in samples]
    predicted = model.predict(images, VOCABULARY, num_kept=cfg.MODEL.CRM.NUM_KEPT)
    text, sizes = model.embed_vocabulary(VOCABULARY), [truth.shape for truth in truths]
    baseline = cost_map_labels(model, list(map(image_to_tensor, images)), text, sizes)
    columns = {
        "training-free": [labels.cpu().numpy() for labels in baseline],
        "ERR-Seg": [result.labels.cpu().numpy() for result in predicted],
    }
    save_image(prediction_grid(images, truths, columns), file)


def prediction_grid(
    images: Sequence[NDArray[np.uint8]], truths: Sequence[Labels], predictions: Mapping[str, Sequence[Labels]]
) -> Image.Image:
    """Draw one row per scene: the image, the truth, one column for each way of predicting, and a legend below.

    Args:
        images: scenes (H, W, 3) uint8 RGB.
        truths: their label maps (H, W), indices into ``VOCABULARY``; the legend marks unseen classes as "new".
        predictions: title of a column to the label maps predicted.
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
    """List the truth's classes, then those that the predictions show on enough of the area to be worth naming."""
    truth = np.unique(maps[0]).tolist()
    shown = list(truth)
    for labels in maps[1:]:
        shown += sorted(index for index, share in area_shares(labels, len(VOCABULARY)) if share >= LEAST_AREA)
    entries = []
    for index in dict.fromkeys(shown):
        red, green, blue = colors[index].tolist()
        name = VOCABULARY[index] + (" (new)" if index in UNSEEN else "")
        entries.append(Entry((red, green, blue), name, ink=INK if index in truth else FAINT))
    return entries
