"""The diagnosis of a model on a benchmark: oracles in a chain, and errors by region, by class and by image."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.nn import functional as F

from err_seg.config import Config
from err_seg.data import EvaluationItem, SegmentationPairs
from err_seg.evaluation import ConfusionMatrix
from err_seg.evaluation.loop import evaluation_batches
from err_seg.evaluation.predictors import benchmark_num_kept
from err_seg.evaluation.tta import segment_images
from err_seg.lab.diagnosis import oracles
from err_seg.lab.diagnosis.oracles import Labels
from err_seg.prediction.model import ERRSeg
from err_seg.utils.errors import ConfigError

SIZES = (0.001, 0.01, 0.1, 1.0)
"""Upper ends of the bins of regions of the ground truth, as shares of the image's area."""
MOST_PAIRS = 20


class CostlyImage(NamedTuple):
    """An image with many errors: how much of it is wrong, in 0..1, its place in the data, its label map (H, W)."""

    wrong: float
    number: int
    labels: Labels


@dataclass
class Diagnosis:
    """What was found.

    Attributes:
        benchmark, images: its name, and how many images.
        chain: (title, mIoU in percent) of the model and of one oracle after the other; the last is 100.
        similar: (least similarity, mIoU) where confusions of so similar names count as right.
        sizes: for each of :data:`SIZES`, pixels in regions of this size, and how many of them are wrong.
        bands: (title, number of classes, mIoU) by similarity to the training vocabulary.
        confusions: (class, taken for, pixels, similarity) of the pairs that cost most.
        worst: the images that cost most, worst first.
    """

    benchmark: str
    images: int
    chain: list[tuple[str, float]] = field(default_factory=list)
    similar: list[tuple[float, float]] = field(default_factory=list)
    sizes: list[tuple[int, int]] = field(default_factory=list)
    bands: list[tuple[str, int, float]] = field(default_factory=list)
    confusions: list[tuple[str, str, int, float]] = field(default_factory=list)
    worst: list[CostlyImage] = field(default_factory=list)


class Asking:
    """Labels images as evaluation does, with the benchmark's vocabulary or with some of its classes alone."""

    def __init__(self, cfg: Config, model: ERRSeg, pairs: SegmentationPairs):
        self.cfg, self.model, self.names = cfg, model, pairs.spec.vocabulary
        self.text, self.num_kept = model.embed_vocabulary(self.names), benchmark_num_kept(cfg, pairs.spec)

    def __call__(self, item: EvaluationItem, classes: Sequence[int] | None = None) -> tuple[Labels, list[int]]:
        """Return the label map (H, W) and the classes kept, indices into the vocabulary."""
        chosen = list(range(len(self.names)) if classes is None else classes)
        num_kept = self.num_kept if classes is None else len(chosen)
        asked = (self.text[chosen], num_kept, tuple(self.names[i] for i in chosen), [item.size])
        crm = self.model.head.crm
        least, crm.min_score = crm.min_score, crm.min_score if classes is None else 0.0  # else all of them are kept
        try:
            (result,) = segment_images(self.cfg, self.model, [item.image], asked)
        finally:
            crm.min_score = least
        indices = np.array(chosen)
        return indices[result.labels.cpu().numpy()], indices[result.kept.cpu().numpy()].tolist()


@torch.no_grad()
def diagnose(
    cfg: Config,
    model: ERRSeg,
    pairs: SegmentationPairs,
    *,
    training: Sequence[str] = (),
    similar: Sequence[float] = (0.95, 0.9),
    borders: Sequence[int] = (1, 2, 4, 8),
    worst: int = 12,
) -> Diagnosis:
    """Label all images of a benchmark, with a progress bar, and find why pixels are wrong.

    Args:
        cfg: K, sizes and what ``TEST`` says are as in evaluation.
        model: in evaluation mode.
        pairs: a benchmark without a background class.
        training: the vocabulary that the model was trained with, for the bands; empty: there are none.
        similar: cosine similarities of text embeddings from which names are taken to mean the same.
        borders: widths in pixels of the bands along borders in which every pixel counts as right, rising.
        worst: how many images are listed.

    Raises:
        ConfigError: the benchmark has a background class.
    """
    spec = pairs.spec
    if spec.variant == "background":
        raise ConfigError(f"{spec.name} has a background class, whose names cannot be told apart; diagnose another one")
    titles = ["the model", "no class kept that is absent", "no class lost by CRM", "the right class for each region"]
    titles += [f"right within {width} px of a border" for width in borders] + ["all pixels right"]
    steps, alike = ([ConfusionMatrix(len(spec.vocabulary), spec.ignore_label) for _ in x] for x in (titles, similar))
    sizes, costly = np.zeros((len(SIZES), 2), np.int64), []
    with model.evaluating():
        ask = Asking(cfg, model, pairs)
        unit = F.normalize(ask.text.double(), dim=1)
        similarity = (unit @ unit.T).cpu().numpy()
        for item in (item for items in evaluation_batches(cfg, pairs) for item in items):
            truth = item.label.long().numpy()
            labels, kept = ask(item)
            chain = [labels, *oracle_chain(ask, item, labels, kept, borders, spec.ignore_label)]
            for counts, step in zip(steps, chain, strict=True):
                counts.update(torch.from_numpy(step), item.label)
            for counts, least in zip(alike, similar, strict=True):
                same = oracles.similar_pairs(labels, truth, similarity, least, spec.ignore_label)
                counts.update(torch.from_numpy(oracles.corrected(labels, truth, same)), item.label)
            counted = truth != spec.ignore_label
            wrong, numbered = counted & (labels != truth), oracles.regions(truth)
            places = np.searchsorted(SIZES, np.bincount(numbered.flat) / truth.size)[numbered]
            sizes += np.stack([np.bincount(places[mask], minlength=len(SIZES)) for mask in (counted, wrong)], axis=1)
            costly.append(CostlyImage(float(wrong.sum() / max(1, counted.sum())), item.index, labels))
            costly = sorted(costly, key=lambda image: (-image.wrong, image.number))[:worst]
    metrics = [counts.metrics(spec.vocabulary) for counts in steps]
    found = Diagnosis(spec.name, len(pairs), [(t, m["mIoU"]) for t, m in zip(titles, metrics, strict=True)])
    found.similar = [(x, c.metrics(spec.vocabulary)["mIoU"]) for x, c in zip(similar, alike, strict=True)]
    found.sizes, found.worst = [(int(a), int(b)) for a, b in sizes], costly
    if training:
        nearest = (unit @ F.normalize(model.embed_vocabulary(training).double(), dim=1).T).amax(dim=1).cpu().numpy()
        found.bands = bands(nearest, np.array([v for n, v in metrics[0].items() if n.startswith("IoU-")]), similar)
    found.confusions = confusions(steps[0].matrix.numpy(), spec.vocabulary, similarity)
    return found


def oracle_chain(
    ask: Asking, item: EvaluationItem, labels: Labels, kept: Sequence[int], borders: Sequence[int], ignore_label: int
) -> list[Labels]:
    """Correct an image's label map (H, W) by one oracle after the other; the last is right but for ignored pixels."""
    truth = item.label.long().numpy()
    present = [int(value) for value in np.unique(truth) if value != ignore_label]
    found = [place for place in kept if place in present]
    own, all_present = (ask(item, classes)[0] if classes else labels for classes in (found, present))
    conditions = [own == truth, all_present == truth, oracles.majority_is(all_present, truth, ignore_label)]
    conditions += [oracles.near_border(truth, width) for width in borders] + [np.ones(truth.shape, dtype=bool)]
    chain = []
    for condition in conditions:
        labels = oracles.corrected(labels, truth, condition & (truth != ignore_label))
        chain.append(labels)
    return chain


def bands(nearest: Any, ious: Any, thresholds: Sequence[float]) -> list[tuple[str, int, float]]:
    """Average IoU over the classes by similarity (N,) to the nearest training class, as Table IV groups them."""
    edges = [np.inf, 1 - 1e-6, *sorted(thresholds, reverse=True), -np.inf]
    titles = ["same", *(f"≥ {edge:g}" for edge in edges[2:-1]), f"< {edges[-2]:g}"]
    found = []
    for title, high, low in zip(titles, edges, edges[1:], strict=False):
        values = ious[(nearest < high) & (nearest >= low) & ~np.isnan(ious)]
        found.append((title, len(values), float(values.mean()) if len(values) else float("nan")))
    return found


def confusions(matrix: Any, names: Sequence[str], similarity: Any) -> list[tuple[str, str, int, float]]:
    """List the pairs of classes with most wrong pixels, from an (N, N) matrix [prediction, ground truth]."""
    wrong = matrix - np.diag(matrix.diagonal())
    order = np.argsort(-wrong, axis=None, kind="stable")[:MOST_PAIRS]
    pairs = zip(*np.unravel_index(order, wrong.shape), strict=True)
    return [
        (names[truth], names[label], int(wrong[label, truth]), float(similarity[label, truth]))
        for label, truth in pairs
        if wrong[label, truth]
    ]
