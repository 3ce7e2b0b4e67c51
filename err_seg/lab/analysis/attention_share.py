"""How much of CFM's attention goes to classes that an image does not show (paper, Proposition 1).

Our statement of it. CFM shares a class's attention out between the T classes kept at a place by a softmax. P of them
are present in the image and R = T − P are redundant.

1. If the logits differ by at most Δ, the redundant classes take a share of at least R / (R + P·exp(Δ)) and at most
   R / (R + P·exp(−Δ)); both are attained.
2. If the logits are exchangeable (no order of the classes is likelier than another), the expected share is R / T.

For a fixed P and bounded logits, the share thus tends to 1 as the vocabulary grows; what training can do is to make Δ
large in the right direction. :func:`measure_attention_share` measures what it did.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from err_seg.data import SegmentationPairs
from err_seg.data.image_sources import image_to_tensor
from err_seg.evaluation.results import text_table
from err_seg.lab.table import finish_shares, images_text, mean_and_stdev
from err_seg.modeling.crm import count_class_pixels
from err_seg.modeling.escf import CFM
from err_seg.prediction.attention import AttentionLayer, escf_with, recording
from err_seg.prediction.model import ERRSeg
from err_seg.utils.files import write_json
from err_seg.utils.progress import ProgressBar
from err_seg.visualization.plots import COLUMNS, panel_grid

# what is measured of a layer and an image, in this order
QUANTITIES = ("redundant", "itself", "spread", "lower", "upper")


def redundant_share(logits: Tensor, present: Tensor) -> Tensor:
    """Return the share of the softmax of logits (..., T) that all but the ``present`` classes, (T,) bool, take."""
    return logits.softmax(dim=-1)[..., ~present].sum(dim=-1)


def share_bounds(num_present: int, num_redundant: int, spread: Tensor) -> tuple[Tensor, Tensor]:
    """Return the least and the greatest share of the redundant classes (statement 1), each of the shape of Δ.

    Args:
        num_present, num_redundant: P, at least 1, and R.
        spread: Δ ≥ 0, any shape: the largest logit less the smallest.
    """
    log_odds = spread.new_tensor(num_redundant / num_present).log()
    return (log_odds - spread).sigmoid(), (log_odds + spread).sigmoid()


def layer_quantities(layer: AttentionLayer, present: Tensor) -> list[float]:
    """Average over all places, heads and present classes what the attention of one CFM does.

    Args:
        layer: queries and keys (places, K, C).
        present: (K,) bool, which of the kept classes are present; at least one.

    Returns:
        :data:`QUANTITIES`: the share that present classes give to redundant ones and that they give to themselves, the
        spread Δ of their logits, and the least and greatest share that P, R and Δ of each softmax allow.
    """
    queries = present.nonzero()[:, 0]
    logits = layer.logits(positions=queries)  # places×heads×P×K
    spread = logits.amax(dim=-1) - logits.amin(dim=-1)
    itself = logits.softmax(dim=-1)[..., torch.arange(len(queries)), queries]
    bounds = share_bounds(len(queries), len(present) - len(queries), spread)
    return [float(quantity.mean()) for quantity in (redundant_share(logits, present), itself, spread, *bounds)]


@dataclass(frozen=True)
class AttentionShare:
    """What present classes attend to, over the images of a data set, with one K.

    Attributes:
        dataset: the data set's name.
        num_kept: K.
        present: (N,) int64, how many of the kept classes are in each image.
        quantities: (N, L, 5) float64, :data:`QUANTITIES` of each image and layer.
        left_out: number of further images, which are left out because none of their classes was kept.
    """

    dataset: str
    num_kept: int
    present: NDArray[np.int64]
    quantities: NDArray[np.float64]
    left_out: int = 0

    @property
    def uniform(self) -> float:
        """R / K averaged over the images: the redundant classes' share if all classes got the same attention."""
        return float((1 - self.present / self.num_kept).mean())

    def mean(self, quantity: str) -> NDArray[np.float64]:
        """Average one of :data:`QUANTITIES` over the images: (L,)."""
        return self.quantities[:, :, QUANTITIES.index(quantity)].mean(axis=0)

    @property
    def preference(self) -> NDArray[np.float64]:
        """(L,): how many times as much attention a present class gets as a redundant one; NaN where there is none."""
        share, uniform = self.mean("redundant"), self.uniform
        with np.errstate(divide="ignore", invalid="ignore"):
            return (1 - share) / share * np.divide(uniform, 1 - uniform)


@torch.no_grad()
def measure_attention_share(model: ERRSeg, pairs: SegmentationPairs, num_kept: Sequence[int]) -> list[AttentionShare]:
    """Measure the share over a data set, with a progress bar; images are seen as :meth:`ERRSeg.predict` sees them.

    The classes with a labelled pixel are present. Those of them that CRM drops take no part, whatever K is.

    Args:
        model: with a CFM.
        num_kept: each K; a K above T counts as T.

    Returns:
        One result per K, without repetitions, in the order given.

    Raises:
        ValueError: the network has no CFM; a K below 1; the data set has a background class, so that it is unknown
            which classes are absent; or no class of any image was kept.
    """
    escf = escf_with(model, CFM)
    spec = pairs.spec
    num_classes = len(spec.vocabulary)
    if spec.num_foreground:
        raise ValueError(
            f"data set {spec.name!r}: its background stands for many classes, so none is known to be absent"
        )
    if not num_kept or min(num_kept) < 1:
        raise ValueError(f"num_kept must be numbers of at least 1, got {list(num_kept)}")
    kept_numbers = list(dict.fromkeys(min(k, num_classes) for k in num_kept))
    measured: dict[int, list[tuple[int, list[list[float]]]]] = {k: [] for k in kept_numbers}
    text = model.embed_vocabulary(spec.vocabulary)
    with model.evaluating():
        for index in ProgressBar(range(len(pairs)), desc=spec.name, unit="image"):
            sample = pairs[index]
            pixels = count_class_pixels(torch.from_numpy(sample.label).unsqueeze(0), num_classes)[0]
            features = model.encoder(model.preprocess([image_to_tensor(sample.image)]))
            for k in kept_numbers:
                with recording(escf, (CFM,)) as attention:
                    kept = model.head(features, text, k).kept[0].cpu()
                is_present = pixels[kept] > 0
                if is_present.any():
                    layers = [layer_quantities(layer, is_present) for layer in attention.category]
                    measured[k].append((int(is_present.sum()), layers))
    results = []
    for k, of_images in measured.items():
        if not of_images:
            raise ValueError(f"data set {spec.name!r}: with K = {k} no class of any image was kept; take a larger K")
        present, quantities = (np.array(values) for values in zip(*of_images, strict=True))
        results.append(AttentionShare(spec.name, k, present, quantities, len(pairs) - len(of_images)))
    return results


def share_table(results: Sequence[AttentionShare]) -> str:
    """Lay the shares out as aligned text that is Markdown, too: one row for each K and layer, shares in percent."""
    rows = []
    for result in results:
        for layer, (redundant, itself, spread, lower, upper) in enumerate(result.quantities.mean(axis=0)):
            shares = [100 * share for share in (result.uniform, redundant, itself, 1 - redundant - itself)]
            numbers = [result.present.mean(), *shares, result.preference[layer], spread]
            bounds = f"{100 * lower:.1f} to {100 * upper:.1f}"
            rows.append([result.dataset, result.num_kept, layer + 1, *numbers, bounds])
    header = ["data set", "K", "CFM", "present kept", "uniform R/K", "to redundant", "to itself", "to other present"]
    return text_table([*header, "present : redundant", "Δ", "bounds"], rows)


def save_attention_share(results: Sequence[AttentionShare], path: str | Path) -> None:
    """Write a JSON list, one entry per data set and K, with means and standard deviations over the images."""
    entries = [
        {
            "dataset": result.dataset,
            "num_kept": result.num_kept,
            "pictures": len(result.present),
            "left_out": result.left_out,
            "present_kept": float(result.present.mean()),
            "uniform": result.uniform,
            "layers": [
                {name: mean_and_stdev(values) for name, values in zip(QUANTITIES, of_layer.T.tolist(), strict=True)}
                for of_layer in result.quantities.transpose(1, 0, 2)  # images×5
            ],
        }
        for result in results
    ]
    write_json(path, entries, ensure_ascii=False)


def draw_attention_share(results: Sequence[AttentionShare]) -> Figure:
    """Draw the redundant classes' share over K, a panel per data set: measured in each CFM and at uniform attention."""
    ordered = sorted(results, key=lambda result: result.num_kept)
    datasets = dict.fromkeys(result.dataset for result in results)
    figure, panels = panel_grid(len(datasets), (5.2, 3.8), margin=1, sharey=True)
    for panel, dataset in zip(panels, datasets, strict=True):
        group = [result for result in ordered if result.dataset == dataset]
        num_kept = [result.num_kept for result in group]
        panel.plot(num_kept, [r.uniform for r in group], "o--", color="grey", label="R / K, uniform attention")
        shares = np.array([result.mean("redundant") for result in group])  # K×L
        for layer, share in enumerate(shares.T):
            panel.plot(num_kept, share, "o-", label=f"CFM {layer + 1}, measured")
        panel.set_title(f"{dataset} ({images_text(len(group[0].present))})", fontsize="medium")
        panel.set_xscale("log", base=2)
        panel.set_xticks(num_kept, map(str, num_kept))
        panel.minorticks_off()
        panel.set_xlabel("K, number of classes kept")
        finish_shares(panel)
    figure.supylabel("attention paid to redundant classes", fontsize="medium")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=COLUMNS, frameon=False)
    return figure
