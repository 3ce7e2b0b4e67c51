"""Which of the classes in an image are among the K that CRM keeps, for every K at once (why Table XIII saturates)."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from err_seg.config import Config
from err_seg.data import SegmentationPairs
from err_seg.evaluation.loop import evaluation_batches
from err_seg.evaluation.results import text_table
from err_seg.lab.table import finish_shares
from err_seg.modeling.crm import count_class_pixels
from err_seg.prediction.model import ERRSeg
from err_seg.utils.files import write_json
from err_seg.visualization.plots import COLUMNS, panel_grid

# most of Table XIII's
NUM_KEPT_COLUMNS = (4, 8, 16, 24, 32, 48, 64, 80)


@dataclass(frozen=True)
class ClassRecall:
    """Where CRM ranks the classes that are in the images.

    Attributes:
        dataset: the data set's name.
        images: number of images.
        classes_by_rank: (T,) int64; entry r counts the classes, over all images, that are in the image and that
            CRM ranks r-th in it, from 0.
        pixels_by_rank: (T,) int64; their labelled pixels.
        num_kept: the data set's own K in evaluation, if it has one.
    """

    dataset: str
    images: int
    classes_by_rank: NDArray[np.int64]
    pixels_by_rank: NDArray[np.int64]
    num_kept: int | None = None

    @property
    def class_recall(self) -> NDArray[np.float64]:
        """Share of the classes present that are kept with K = 1..T: (T,) in 0..1, rising; NaN without labels."""
        return _cumulative_share(self.classes_by_rank)

    @property
    def pixel_recall(self) -> NDArray[np.float64]:
        """Share of the labelled pixels whose class is kept with K = 1..T: (T,), the bound of pixel accuracy."""
        return _cumulative_share(self.pixels_by_rank)


@torch.no_grad()
def measure_class_recall(cfg: Config, model: ERRSeg, pairs: SegmentationPairs) -> ClassRecall:
    """Rank the classes in every image as evaluation does, without fusion and upsampling, with a progress bar.

    In a data set with a background class (PAS-20b), which stands for many classes, only the other classes count.

    Of the network, the encoder and CRM are used.
    """
    spec = pairs.spec
    num_classes = len(spec.vocabulary)
    num_counted = spec.num_foreground or num_classes
    classes_by_rank, pixels_by_rank = torch.zeros(2, num_classes, dtype=torch.int64)
    text = model.embed_vocabulary(spec.vocabulary)
    with model.evaluating():
        for items in evaluation_batches(cfg, pairs):
            ranks = class_ranks(model, model.preprocess([item.image for item in items]), text).cpu()
            for item, rank in zip(items, ranks[:, :num_counted], strict=True):
                pixels = count_class_pixels(item.label.long().unsqueeze(0), num_counted)[0]
                classes_by_rank[rank] += (pixels > 0).long()
                pixels_by_rank[rank] += pixels
    return ClassRecall(spec.name, len(pairs), classes_by_rank.numpy(), pixels_by_rank.numpy(), spec.num_kept)


def class_ranks(model: ERRSeg, images: Tensor, text: Tensor) -> Tensor:
    """Rank the T classes of a vocabulary by CRM's scores: (B, T) int64; CRM keeps the classes of rank 0..K−1.

    Images are (B, 3, S, S) float, normalised; ``text`` (T, D) are the vocabulary's embeddings.
    """
    features = model.encoder(images)
    return model.head.crm.ranking(model.head.cost_maps.of_vocabulary(features, text)[0]).argsort(dim=1)


def recall_table(results: Sequence[ClassRecall], num_kept: Sequence[int]) -> str:
    """Lay the recall at several K out as aligned text that is Markdown, too; in percent, "-" where K > T."""
    rows = [
        [r.dataset, len(r.classes_by_rank), "-" if r.num_kept is None else r.num_kept, what]
        + [100 * float(recall[k - 1]) if k <= len(recall) else float("nan") for k in num_kept]
        for r in results
        for what, recall in (("classes", r.class_recall), ("pixels", r.pixel_recall))
    ]
    return text_table(["data set", "T", "own K", "kept", *(f"K = {k}" for k in num_kept)], rows)


def save_class_recall(results: Sequence[ClassRecall], path: str | Path) -> None:
    """Write a JSON object: data set → counts of classes and pixels present by CRM's rank (from 0)."""
    entries = {
        result.dataset: {
            "pictures": result.images,
            "num_kept": result.num_kept,
            "classes_by_rank": result.classes_by_rank.tolist(),
            "pixels_by_rank": result.pixels_by_rank.tolist(),
        }
        for result in results
    }
    write_json(path, entries, ensure_ascii=False, indent=None)


def draw_class_recall(results: Sequence[ClassRecall]) -> Figure:
    """Draw the recall of classes (left) and of pixels (right) over K, one line per data set, a dot at its own K."""
    figure, (left, right) = panel_grid(2, (5, 4.8), sharey=True)
    for result in results:
        for panel, recall in ((left, result.class_recall), (right, result.pixel_recall)):
            (line,) = panel.step(range(1, len(recall) + 1), recall, where="post", label=result.dataset)
            if result.num_kept is not None and result.num_kept <= len(recall):
                panel.plot(result.num_kept, recall[result.num_kept - 1], "o", color=line.get_color())
    left.set_title("share of the classes present that are kept")
    right.set_title("share of the labelled pixels whose class is kept")
    for panel in (left, right):
        panel.set_xscale("log", base=2)
        panel.xaxis.set_major_formatter("{x:g}")
        panel.set_xlabel("K, number of classes kept (dot: the benchmark's own)")
        finish_shares(panel)
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=COLUMNS, frameon=False)
    return figure


def draw_saturation(panel: Axes, result: ClassRecall, num_kept: Collection[int]) -> None:
    """Draw on an axis of its own, dashed, which share of the classes present is kept at all (Table XIII).

    The line reaches from the smallest to the largest of ``num_kept``, each at least 1, and at most to T.
    """
    shown = np.arange(min(num_kept), min(max(num_kept), len(result.class_recall)) + 1)
    panel.plot(shown, 100 * result.class_recall[shown - 1], "k--", alpha=0.6)
    panel.yaxis.set_major_formatter("{x:g}")
    panel.set_ylabel("classes present that are kept, in % (dashed)")
    panel.margins(y=0.1)


def _cumulative_share(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    total = counts.sum()
    return counts.cumsum() / total if total else np.full(len(counts), np.nan)
