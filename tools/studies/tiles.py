"""What windows gain on large images: mIoU and boundary IoU on large scenes of the miniature world.

The size of the windows is chosen on validation scenes; every row is then measured on test scenes of several seeds.
Scenes of 900 to 1,200 pixels a side show either many things of the usual size, or few things six times larger.
"""

import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

from err_seg.commands.options import positive
from err_seg.evaluation import BoundaryConfusion
from err_seg.evaluation.results import text_table
from err_seg.lab.table import mean_text
from err_seg.mini.scenes import LargeScenes
from err_seg.models import hub
from err_seg.prediction.model import ERRSeg
from err_seg.prediction.segmentation import Segmentation
from tools.studies import save_study, study_parser

TILES = (5 / 6, 1, 4 / 3, 2, 4)
"""Sides of windows that are compared, in units of S."""
KINDS = {"many small things": 1.0, "few large things": 6.0}
"""Zoom of the scenes, see :class:`LargeScenes`."""
BAND = 0.004
"""Width of the boundary band relative to the diagonal: 6 pixels, since the usual 2 % are as wide as small objects."""
METRICS = ("mIoU", "mBoundaryIoU", "classes kept", "seconds")
HEADER = ("scenes", "", "mIoU, validation", "mIoU", "boundary IoU", "classes kept, %", "CPU s")


class Way(NamedTuple):
    """A way of predicting.

    tile: pixels that a window covers; ``None`` sees the image as a whole.
    antialiased: reduce the image with antialiasing.
    refined: let the borders follow the image.
    """

    tile: int | None
    antialiased: bool = False
    refined: bool = False

    def __str__(self) -> str:
        title = "whole image" if self.tile is None else f"tile={self.tile}"
        return title + ", antialiased" * self.antialiased + ", refined" * self.refined


@dataclass(frozen=True)
class WindowResult:
    """What was measured of a way on one kind of scenes.

    Attributes:
        kind: a key of ``KINDS``.
        way: how it was predicted.
        validation: mIoU in percent on validation scenes.
        test: ``METRICS`` of each seed: mIoU and boundary IoU in percent, the share of a scene's classes that are among
            the kept ones in percent, CPU seconds an image.
    """

    kind: str
    way: str
    validation: float
    test: list[dict[str, float]]


def ways(side: int) -> list[Way]:
    """List what is compared; some of it with antialiasing, where the network sees less than the image, or refined."""
    tiles = [round(side * tile) for tile in TILES]
    reduced = [Way(tile, antialiased=True) for tile in tiles if tile > side]
    whole = [Way(None), Way(None, antialiased=True), Way(None, refined=True)]
    return [*whole, *map(Way, tiles), *reduced, Way(tiles[0], refined=True)]


def measure(model: ERRSeg, scenes: int, seeds: Sequence[int]) -> list[WindowResult]:
    """Measure every way on every kind of scenes, so many of each split and seed.

    The seeds are those of the test scenes; validation scenes have the first.
    """
    rows = []
    for kind, zoom in KINDS.items():
        validation = LargeScenes("val", length=scenes, seed=seeds[0], zoom=zoom)
        tests = [LargeScenes("test", length=scenes, seed=seed, zoom=zoom) for seed in seeds]
        for way in ways(model.size):
            validation_miou = evaluate_way(model, validation, way)["mIoU"]
            test_metrics = [evaluate_way(model, test, way) for test in tests]
            rows.append(WindowResult(kind, str(way), validation_miou, test_metrics))
            print(" | ".join(cells(rows[-1])), file=sys.stderr)
    return rows


def evaluate_way(model: ERRSeg, scenes: LargeScenes, way: Way) -> dict[str, float]:
    """Predict all scenes in one way, and return its ``METRICS``."""
    counts = BoundaryConfusion(len(scenes.vocabulary), 255, dilation_ratio=BAND)
    found, seconds = [], 0.0
    for sample in (scenes[index] for index in range(len(scenes))):
        start = time.process_time()
        result = predict(model, sample.image, scenes.vocabulary, way)
        labels = result.labels
        seconds += time.process_time() - start
        counts.update(labels, torch.from_numpy(sample.label))
        found.append(np.isin(np.unique(sample.label), result.kept).mean())
    metrics = counts.metrics(scenes.vocabulary)
    values = (metrics["mIoU"], metrics["mBoundaryIoU"], 100 * float(np.mean(found)), seconds / len(scenes))
    return dict(zip(METRICS, values, strict=True))


def predict(model: ERRSeg, image: np.ndarray, vocabulary: Sequence[str], way: Way) -> Segmentation:
    """Predict an image (H, W, 3) in one way, at its own size."""
    height, width = image.shape[:2]
    tile = way.tile
    if way.antialiased:  # Pillow's resizing is; what the network sees is then not reduced any more
        scale = 1.0 if tile is None else model.size / tile
        reduced = (model.size, model.size) if tile is None else (round(width * scale), round(height * scale))
        image = np.asarray(Image.fromarray(image).resize(reduced, Image.Resampling.BILINEAR))
        tile = None if tile is None else model.size
    return model.predict(image, vocabulary, tile=tile, refine=way.refined, size=(height, width))


def chosen(rows: Sequence[WindowResult]) -> dict[str, str]:
    """Return for each kind of scenes the way that is best on validation scenes."""
    return {kind: max((r for r in rows if r.kind == kind), key=lambda r: r.validation).way for kind in KINDS}


def cells(row: WindowResult) -> list[str]:
    """Return a row of the table: the mean over the seeds, with the standard deviation of the two IoU."""
    found = [row.kind, row.way, f"{row.validation:.1f}"]
    for metric in METRICS:
        values = [of_seed[metric] for of_seed in row.test]
        mean = f"{statistics.fmean(values):.{2 if metric == 'seconds' else 1}f}"
        found.append(mean_text(values) if "IoU" in metric else mean)
    return found


def markdown(rows: Sequence[WindowResult]) -> str:
    """Write the table, and what was chosen."""
    best = "".join(f"\nChosen on validation scenes, {kind}: {way}\n" for kind, way in chosen(rows).items())
    return f"{text_table(HEADER, [cells(row) for row in rows])}\n{best}"


def main(argv: Sequence[str] | None = None) -> None:
    """Measure the network of the package, and write the table."""
    parser = study_parser("tiles", __doc__)
    add = parser.add_argument
    add("--scenes", type=positive, default=8, metavar="N", help="of each kind, split and seed (8)")
    add("--seeds", type=int, nargs="+", default=[0, 1, 2], metavar="S", help="of the scenes (0 1 2)")
    options = parser.parse_args(argv)
    rows = measure(hub.load("mini"), options.scenes, options.seeds)
    save_study(options.output, markdown(rows), {"rows": [asdict(row) for row in rows], "chosen": chosen(rows)})


if __name__ == "__main__":
    main()
