"""What ``err-seg mini`` shows of one seed or several: table, result file, and an image grid of the first scenes."""

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich import box
from rich.console import Console
from rich.table import Table

from err_seg.config import Config
from err_seg.data import SegmentationPairs, get_dataset
from err_seg.data.image_sources import image_to_tensor
from err_seg.lab.mini.evaluation import cost_map_labels
from err_seg.lab.table import mean_text
from err_seg.mini.vocabulary import UNSEEN, VOCABULARY
from err_seg.prediction.model import ERRSeg
from err_seg.utils.files import write_json
from err_seg.utils.images import save_image
from err_seg.visualization.colors import class_colors
from err_seg.visualization.grid import GridRow, fitting_size, lay_out
from err_seg.visualization.legend import FAINT, INK, Entry
from err_seg.visualization.overlay import area_shares

Rows = Mapping[str, Mapping[str, float]]
COLUMNS = {"seen": "seen", "unseen": "unseen", "all": "all", "ms": "ms / image", "fusion ms": "ESCF + GUD ms"}
TABLE_WIDTH = 110

Labels = NDArray[np.int64]

LEAST_AREA = 0.02
NOTE = "(new): a class that training never showed. Gray: predicted, but not in the image."


def summarize(runs: Sequence[Rows]) -> dict[str, dict[str, dict[str, float]]]:
    """Average each metric over the seeds: row to metric to "mean" and "stdev", the latter 0 for one seed."""

    def spread(values: Sequence[float]) -> dict[str, float]:
        return {"mean": statistics.mean(values), "stdev": statistics.stdev(values) if len(values) > 1 else 0.0}

    return {
        row: {metric: spread([run[row][metric] for run in runs]) for metric in metrics}
        for row, metrics in runs[0].items()
    }


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
