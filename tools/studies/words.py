"""What contrast gains where few names are asked for: names that are in the image, and names that are not.

Of each scene some names are asked, half of which it shows. The right answer is "none of these" wherever the scene shows
another name. Thresholds are chosen on validation scenes.
"""

import random
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import torch

from err_seg.evaluation.results import text_table
from err_seg.lab.benchmarks.measurement import in_new_process, peak_memory
from err_seg.lab.table import mean_text
from err_seg.mini.scenes import MiniScenes
from err_seg.mini.shapes import OBJECT_COLOURS, SHAPES, TEXTURES, WALL_COLOURS
from err_seg.mini.vocabulary import SIXTY
from err_seg.models import hub
from err_seg.prediction.class_maps import UNLABELED
from err_seg.prediction.model import ERRSeg
from err_seg.prediction.segmentation import Segmentation
from tools.studies import add_network_options, save_study, study_parser

ASKED = (1, 3, 6, 12, 24, SIXTY)
WAYS = ("off", "threshold", "common")
WAYS_OF_SIXTY = ("background", "30 others, 30 wrong")
"""What needs names that the world of sixty lacks, or its walls."""
THRESHOLDS = [round(0.05 * step, 2) for step in range(1, 20)]
STEP = 3  # every so many pixels enter the ranking of pixels
HEADER = (
    "asked",
    "contrast",
    "pixels right, validation",
    "IoU, present",
    "area of absent, %",
    "pixels right, %",
    "AUROC",
    "FPR95, %",
)
METRICS = ("IoU", "false area", "accuracy", "AUROC", "FPR95")


class Ask(NamedTuple):
    """A question: the image, the names asked for, and for every pixel the right one of them or ``UNLABELED``."""

    image: np.ndarray
    names: list[str]
    label: np.ndarray


def questions(scenes: MiniScenes, count: int) -> Iterator[Ask]:
    """Ask of each scene for so many names, half of them present; of one name, once for a present and an absent one."""
    vocabulary = scenes.full_vocabulary.names
    for index in range(len(scenes)):
        sample, choice = scenes[index], random.Random(index)
        present = [int(label) for label in np.unique(sample.label)]
        absent = [label for label in range(len(vocabulary)) if label not in present]
        choice.shuffle(present)
        choice.shuffle(absent)
        for shown in (1, 0) if count == 1 else (-(-count // 2),):
            shown = max(min(shown, len(present)), count - len(absent))
            asked = present[:shown] + absent[: count - shown]
            places = np.full(len(vocabulary), UNLABELED)
            places[asked] = np.arange(len(asked))
            yield Ask(sample.image, [vocabulary[label] for label in asked], places[sample.label])


def contrast_names(way: str, asked: Sequence[str], scenes: MiniScenes) -> Any:
    """Return what ``predict`` takes as ``contrast``; for "background", the walls, which one would write by hand."""
    if way in ("off", "threshold"):
        return "none"
    if way == "common":
        return way
    world = scenes.full_vocabulary.names
    others = [name for name in world if name not in asked]
    if way == "background":
        return [name for name in others if name.endswith("wall")] or "none"
    kinds = (*SHAPES, *(f"{texture} wall" for texture in TEXTURES))
    wrong = [name for name in map(" ".join, product((*OBJECT_COLOURS, *WALL_COLOURS), kinds)) if name not in world]
    choice = random.Random(len(asked))
    return choice.sample(others, min(30, len(others))) + choice.sample(wrong, 30)


def evaluate(model: ERRSeg, scenes: MiniScenes, count: int, way: str, thresholds: Sequence[float]) -> list[dict]:
    """Ask every scene in one way; return ``METRICS`` for each threshold, in percent but for AUROC."""
    inside, union, false, right = (np.zeros(len(thresholds)) for _ in range(4))
    pixels, scores, truths = 0, [], []
    asks = list(questions(scenes, count))
    for ask in asks:
        result = model.predict(ask.image, ask.names, contrast=contrast_names(way, ask.names, scenes))
        labels, highest = result.labels.numpy().astype(int), result.scores.numpy()
        present = [label for label in np.unique(ask.label) if label != UNLABELED]
        pixels += labels.size
        for row, threshold in enumerate(thresholds):
            found = np.where(highest < threshold, UNLABELED, labels)
            right[row] += (found == ask.label).sum()
            false[row] += (~np.isin(found, [UNLABELED, *present])).mean()
            for label in present:
                inside[row] += ((found == label) & (ask.label == label)).sum()
                union[row] += ((found == label) | (ask.label == label)).sum()
        scores.append(none_score(result)[::STEP, ::STEP].ravel())
        truths.append((ask.label == UNLABELED)[::STEP, ::STEP].ravel())
    auroc, false_positives = ranking(np.concatenate(scores), np.concatenate(truths))
    values = zip(inside / union, false / len(asks), right / pixels, strict=True)
    return [
        dict(zip(METRICS, map(float, (100 * iou, 100 * area, 100 * share, auroc, 100 * false_positives)), strict=True))
        for iou, area, share in values
    ]


def none_score(result: Segmentation) -> np.ndarray:
    """Rank pixels (H, W) by how probable it is that they are none of the classes."""
    maps, is_class = result.maps.numpy(), (result.kept < len(result.vocabulary)).numpy()
    best = [maps[which].max(axis=0, initial=0) for which in (is_class, ~is_class)]
    return best[1] - best[0]


def ranking(scores: np.ndarray, truths: np.ndarray) -> tuple[float, float]:
    """Return the area under the ROC curve, and the false positive rate where 95 % of the true pixels are found."""
    if truths.all() or not truths.any():
        return float("nan"), float("nan")
    values, place = np.unique(scores, return_inverse=True)
    true, false = (np.bincount(place, which, len(values))[::-1].cumsum() for which in (truths, ~truths))
    true, false = np.r_[0, true / true[-1]], np.r_[0, false / false[-1]]
    auroc = (np.diff(false) * (true[1:] + true[:-1]) / 2).sum()
    return float(auroc), float(false[np.searchsorted(true, 0.95)])


def cost(network: str, names: int, way: str) -> tuple[float, float]:
    """Measure the CPU milliseconds and the peak memory in megabytes of one image of one name; in a new process."""
    model, scenes = hub.load(network), MiniScenes("test", length=12, names=names)
    asks = [ask for index, ask in enumerate(questions(scenes, 1)) if not index % 2]
    times = []
    with peak_memory(torch.device("cpu")) as peak:
        for ask in asks:
            start = time.process_time()
            _ = model.predict(ask.image, ask.names, contrast=contrast_names(way, ask.names, scenes)).labels
            times.append(time.process_time() - start)
        return 1e3 * statistics.median(times[1:]), peak() / 2**20


def main(argv: Sequence[str] | None = None) -> None:
    """Measure every way and number of names, and write the tables."""
    parser = study_parser("words", __doc__)
    add_network_options(parser)
    parser.add_argument("--names", type=int, default=SIXTY, metavar="T", help="of the world: 60, or 100 to 11,712 (60)")
    options = parser.parse_args(argv)
    models = [hub.load(network) for network in options.networks]
    validation, tests = (MiniScenes(split, length=options.scenes, names=options.names) for split in ("val", "test"))
    ways, rows = WAYS + WAYS_OF_SIXTY * (options.names == SIXTY), []
    for count, way in product(ASKED, ways):
        found, thresholds = [], THRESHOLDS if way == "threshold" else [0.0]
        for model in models:
            tried = [metrics["accuracy"] for metrics in evaluate(model, validation, count, way, thresholds)]
            best = tried.index(max(tried))
            (metrics,) = evaluate(model, tests, count, way, [thresholds[best]])
            found.append({"threshold": thresholds[best], "validation": tried[best], **metrics})
        rows.append({"asked": count, "contrast": way, "metrics": found})
        print(" | ".join(cells(rows[-1])), file=sys.stderr)
    costs = {way: in_new_process(cost, options.networks[0], options.names, way) for way in ways}
    text = text_table(HEADER, [cells(row) for row in rows]) + "\n\n"
    text += text_table(("contrast", "CPU ms", "MB"), [[way, *(f"{n:.0f}" for n in costs[way])] for way in ways]) + "\n"
    save_study(options.output, text, {"rows": rows, "cost": costs})


def cells(row: dict[str, Any]) -> list[str]:
    """Return a row of the table: the mean over the networks, with the standard deviation."""
    values = {metric: [of_one[metric] for of_one in row["metrics"]] for metric in ("validation", *METRICS)}
    shown = [
        "" if np.isnan(of_all).any() else mean_text(of_all, ".3f" if metric == "AUROC" else ".1f")
        for metric, of_all in values.items()
    ]  # without a pixel of another name, nothing can be ranked
    return [str(row["asked"]), row["contrast"], *shown]


if __name__ == "__main__":
    main()
