"""What examples are worth: unseen classes of the miniature world shown by example, by name, or both.

All sixty names are asked for; the rows of the 36 unseen ones are replaced. Examples are of validation scenes, and
results of test scenes. A colour is an ambiguous name: several classes have it.
"""

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from err_seg.evaluation import ConfusionMatrix
from err_seg.evaluation.results import text_table
from err_seg.lab.table import mean_text
from err_seg.mini.scenes import MiniScenes
from err_seg.mini.vocabulary import ATTRIBUTES, SEEN, UNSEEN, UNSEEN_WORDS, VOCABULARY
from err_seg.models import hub
from err_seg.prediction.examples import Exemplar, Pixels, fit_rows, join
from err_seg.prediction.model import ERRSeg
from err_seg.text.prompts import TextRow, Vocabulary
from tools.studies import add_network_options, save_study, study_parser

COUNTS = (1, 2, 5, 10)
EXAMPLE_SCENES, LEAST_PIXELS = 400, 100
GROUPS = {"unseen": UNSEEN, "unseen words": UNSEEN_WORDS, "seen": SEEN}
HEADER = ("examples", "names", *(f"mIoU, {group}" for group in GROUPS))


def draw_examples(count: int, seed: int) -> list[list[Exemplar]]:
    """Draw so many examples of each unseen class, of scenes that show it on 100 pixels or more."""
    scenes = MiniScenes("val", length=EXAMPLE_SCENES)
    order = np.random.Generator(np.random.PCG64(seed)).permutation(EXAMPLE_SCENES).tolist()
    found: list[list[Exemplar]] = [[] for _ in UNSEEN]
    for sample in (scenes[index] for index in order):
        for label, exemplars in zip(UNSEEN, found, strict=True):
            if len(exemplars) < count and (mask := sample.label == label).sum() >= LEAST_PIXELS:
                exemplars.append(Exemplar(sample.image, mask))
        if all(len(exemplars) == count for exemplars in found):
            break
    return found


def example_pixels(model: ERRSeg, examples: Sequence[Sequence[Exemplar]]) -> Pixels:
    """Read and encode examples of each class."""
    parts = []
    with torch.no_grad(), model.evaluating():
        for owner, exemplars in enumerate(examples):
            for number, exemplar in enumerate(exemplars):
                image, mask = exemplar.read(VOCABULARY[UNSEEN[owner]])
                parts.append(Pixels.of_example(model.encoder(model.preprocess([image])), mask, owner, number))
    return join(parts)


def rows_by_way(model: ERRSeg, pixels: Pixels | None) -> dict[str, Tensor]:
    """Return rows (36, D) of the unseen classes for each way of naming them, beside the examples if there are any."""
    right = model.embed_vocabulary(VOCABULARY)
    colours = [ATTRIBUTES[label][0] for label in UNSEEN]
    listed = sorted(set(colours))
    colour, words = model.embed_vocabulary(listed)[[listed.index(each) for each in colours]], right[list(UNSEEN)]
    if pixels is None:
        return {"right": words, "colour": colour}
    others, common = right[list(SEEN)], model.common_names()[1]
    ways = {"none": torch.zeros_like(words), "right": words, "colour": colour}
    rows = {way: fit_rows(pixels, used, others, torch.cat([others, common]))[0] for way, used in ways.items()}
    mean = F.normalize(pixels.sums(pixels.vectors * pixels.inside[:, None], len(UNSEEN)), dim=1)
    return {"none, plain mean": mean, **rows}


def evaluate(model: ERRSeg, scenes: MiniScenes, rows: Tensor) -> dict[str, float]:
    """Return the mIoU of each of ``GROUPS``, in percent, with rows (36, D) for the unseen classes."""
    by_name = {VOCABULARY[i]: TextRow(row, row, model.digest, "") for i, row in zip(UNSEEN, rows, strict=True)}
    counts, vocabulary = ConfusionMatrix(len(VOCABULARY), 255), Vocabulary(VOCABULARY, rows=by_name)
    samples = [scenes[index] for index in range(len(scenes))]
    results = model.predict_stream([sample.image for sample in samples], vocabulary, contrast="none", batch_size=8)
    for sample, result in zip(samples, results, strict=True):
        counts.update(result.labels, torch.from_numpy(sample.label))
    metrics = counts.metrics(VOCABULARY)
    return {
        group: float(np.nanmean([metrics[f"IoU-{VOCABULARY[label]}"] for label in labels]))
        for group, labels in GROUPS.items()
    }


def cells(row: Mapping[str, Any]) -> list[str]:
    """Return a row of the table: the means over the networks, with standard deviations."""
    found = (mean_text([of_one[group] for of_one in row["miou"]]) for group in GROUPS)
    return [str(row["examples"]), row["names"], *found]


def main() -> None:
    """Measure all ways and numbers of examples, and write the table."""
    parser = study_parser("examples", __doc__)
    add_network_options(parser)
    options = parser.parse_args()
    scenes, rows = MiniScenes("test", length=options.scenes), []
    models = [hub.load(network) for network in options.networks]
    for count in (0, *COUNTS):
        ways: dict[str, list[dict[str, float]]] = {}
        for seed, model in enumerate(models):
            pixels = example_pixels(model, draw_examples(count, seed)) if count else None
            for way, vectors in rows_by_way(model, pixels).items():
                ways.setdefault(way, []).append(evaluate(model, scenes, vectors))
        rows += [{"examples": count, "names": way, "miou": found} for way, found in ways.items()]
        print("\n".join(" | ".join(cells(row)) for row in rows[-len(ways) :]), file=sys.stderr)
    save_study(options.output, text_table(HEADER, [cells(row) for row in rows]) + "\n", {"rows": rows})


if __name__ == "__main__":
    main()
