"""The attention of one class at one point, with all classes of the vocabulary kept and with K of them (paper, Fig. 2).

SFM attends within the map of one class. Before the first CFM that map does not depend on the other classes, so the
first layer's attention is the same however many are kept; from the second layer on, CFM has mixed the map with those
of all classes kept, redundant ones included.
"""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from err_seg.modeling.escf import CFM, SFM
from err_seg.prediction.attention import POINT_COLOR, Attention, escf_with, recording
from err_seg.prediction.model import ERRSeg
from err_seg.prediction.segmentation import Segmentation
from err_seg.text.vocabularies import find_class
from err_seg.visualization.plots import DPI, draw_heat, set_class_title, thumbnail, to_image
from err_seg.visualization.text import first_synonym

# a class with a smaller share of the predicted pixels does not count as present
LEAST_AREA = 0.01
UNIFORM_MARKER = "v"
OUTLINE_COLOR = "#ffffff"
# of what Comparison.class_shares returns, in its order
SHARE_COLORS = {"itself": "#0072b2", "other present classes": "#8fd0f5", "redundant classes": "#e8743b"}


@dataclass(frozen=True)
class ClassAttention:
    """What the network did with one image and one K; ``place`` of the kept classes, from 0, is the one looked at."""

    result: Segmentation
    attention: Attention
    place: int


@dataclass(frozen=True)
class Comparison:
    """One class at one point of an image, with K classes kept and with all.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        point: (x, y) in pixels.
        index: the class looked at, in the vocabulary.
        few, all: what the network did with K classes and with T.
        region: (H, W) bool, where the class is.
        present: (T,) bool, the classes that are in the image; all others are redundant. The class looked at is.
        has_truth: whether region and present are from a label map; else they are the prediction with K classes.
    """

    image: np.ndarray
    point: tuple[int, int]
    index: int
    few: ClassAttention
    all: ClassAttention
    region: np.ndarray
    present: Tensor
    has_truth: bool

    @property
    def relative_point(self) -> tuple[float, float]:
        """The point's (x, y) in 0..1."""
        height, width = self.image.shape[:2]
        return (self.point[0] + 0.5) / width, (self.point[1] + 0.5) / height

    def class_shares(self, run: ClassAttention, layer: int) -> Tensor:
        """Return how a CFM shares the class's attention out at the point.

        Returns:
            (3,) float32: what the class itself, other present classes and redundant ones get; the sum is 1.
        """
        shares = run.attention.to_classes(layer, self.relative_point)[run.place]
        present = self.present[run.result.kept.cpu()]
        itself = shares[run.place]
        return torch.stack([itself, shares[present].sum() - itself, shares[~present].sum()])

    def share_on_class(self, run: ClassAttention, layer: int) -> float:
        """Return which share of an SFM's attention from the point lies where the class is, in 0..1."""
        weights = run.attention.to_pixels(layer, run.place, self.relative_point)
        height, width = self.region.shape
        # on SSR's grid, every pixel has an equal part of its place's weight
        weights = F.interpolate(weights[None, None], size=(height, width), mode="nearest")[0, 0]
        return float(weights[torch.from_numpy(self.region)].sum() / weights.sum())


@torch.no_grad()
def compare_attention(
    model: ERRSeg,
    image: np.ndarray,
    vocabulary: Sequence[str],
    *,
    class_name: str | None = None,
    point: tuple[int, int] | None = None,
    num_kept: int | None = None,
    labels: np.ndarray | None = None,
) -> Comparison:
    """Run the network on an image with K classes and with all, and keep what the attentions of ESCF compute.

    Args:
        model: with SFM and CFM.
        image: (H, W, 3) uint8 RGB.
        vocabulary: T class names.
        class_name: one of them, by all its synonyms or the first; ``None`` is the class predicted at the point.
        point: (x, y) in pixels; ``None`` is the middle.
        num_kept: K, instead of the model's own.
        labels: (H, W) integers, a label map with indices into the vocabulary, others ignored; by default present is
            what the network predicts with K classes on at least 1 % of the pixels.

    Raises:
        ValueError: no SFM or CFM in the network, an unknown class, one that CRM does not keep, a point outside the
            image, labels of another size, or a K that keeps all classes anyway.
    """
    escf = escf_with(model, SFM, CFM)
    height, width = image.shape[:2]
    x, y = (width // 2, height // 2) if point is None else point
    if not (0 <= x < width and 0 <= y < height):
        raise ValueError(f"the point ({x}, {y}) is outside the image: x is 0..{width - 1}, y is 0..{height - 1}")
    if labels is not None and labels.shape != (height, width):
        raise ValueError(f"the label map is {labels.shape} (H, W), the image {(height, width)}; they must be equal")
    num_classes = len(vocabulary)
    index = None if class_name is None else find_class(vocabulary, class_name)
    runs = []
    for k in (num_kept, num_classes):
        with recording(escf) as attention:
            runs.append((model.predict(image, vocabulary, num_kept=k, contrast="none"), attention))
    few = runs[0][0]
    if len(few.kept) == num_classes:
        raise ValueError(f"all {num_classes} classes are kept anyway; take more classes, or a K below {num_classes}")
    predicted = few.labels.cpu().numpy()
    index = int(predicted[y, x]) if index is None else index
    if index not in few.kept.tolist():
        kept = ", ".join(first_synonym(vocabulary[i]) for i in few.kept.tolist())
        raise ValueError(
            f"{vocabulary[index]!r} is not among the {len(few.kept)} classes that CRM keeps for this image ({kept}); "
            "take one of these, or a larger K"
        )
    shown = predicted if labels is None else labels
    counts = np.bincount(shown[(shown >= 0) & (shown < num_classes)].ravel(), minlength=num_classes)
    present = torch.from_numpy(counts > (0 if labels is not None else LEAST_AREA * shown.size))
    present[index] = True
    of_class = [ClassAttention(result, attention, result.kept.tolist().index(index)) for result, attention in runs]
    region = shown == index
    return Comparison(image, (x, y), index, of_class[0], of_class[1], region, present, labels is not None)


def redundancy_figure(comparison: Comparison) -> Image.Image:
    """Draw SFM's attention maps of the class, with all classes above and with K below, and CFM's shares beneath.

    The two maps of a layer have one scale of colours, so that they compare.
    """
    c = comparison
    small = thumbnail(c.image)
    layers = len(c.few.attention.spatial)
    columns = 1 + layers
    aspect = min(max(small.shape[0] / small.shape[1], 0.4), 1.6)
    panel = 3.1
    heights = 2 * (panel * aspect + 0.3), 0.72 * len(c.few.attention.category) + 1.3  # of the maps and of the bars
    figure = Figure(figsize=(panel * columns, sum(heights)), dpi=DPI, layout="constrained")
    above, below = np.asarray(figure.subfigures(2, 1, height_ratios=heights), dtype=object)
    axes = above.subplots(2, columns, squeeze=False)
    for axis in axes.ravel():
        axis.axis("off")
    axes[0, 0].imshow(small, extent=(0, small.shape[1], small.shape[0], 0))
    _mark(axes[0, 0], small, c)
    set_class_title(axes[0, 0], c.all.result.vocabulary[c.index], size=10)
    _write_explanation(axes[1, 0], c)
    for layer in range(layers):
        maps = [run.attention.to_pixels(layer, run.place, c.relative_point).numpy() for run in (c.all, c.few)]
        for axis, run, heat in zip(axes[:, layer + 1], (c.all, c.few), maps, strict=True):
            draw_heat(axis, small, heat, highest=max(m.max() for m in maps))
            _mark(axis, small, c)
            title = f"SFM {layer + 1}, {_kept(run)}: {c.share_on_class(run, layer):.0%} on the class"
            axis.set_title(title, fontsize=10)
    _draw_class_shares(below.subplots(), c)
    return to_image(figure)


def _kept(run: ClassAttention) -> str:
    kept = len(run.result.kept)
    return f"all {kept}" if kept == len(run.result.vocabulary) else f"K = {kept}"


def _mark(axis: Axes, small: np.ndarray, c: Comparison) -> None:
    """Mark the point, and outline where the class is."""
    if c.region.any() and not c.region.all():
        height, width = c.region.shape
        xs = (np.arange(width) + 0.5) * small.shape[1] / width
        ys = (np.arange(height) + 0.5) * small.shape[0] / height
        axis.contour(xs, ys, c.region, levels=[0.5], colors=OUTLINE_COLOR, linewidths=1.2, linestyles="--")
    x, y = c.relative_point
    spot = (x * small.shape[1], y * small.shape[0])
    axis.plot(*spot, "o", color=POINT_COLOR, markeredgecolor="black", markersize=8)
    axis.set(xlim=(0, small.shape[1]), ylim=(small.shape[0], 0))


def _write_explanation(axis: Axes, c: Comparison) -> None:
    source = "label map" if c.has_truth else f"prediction with {_kept(c.few)}"
    paragraphs = (
        f"Right: where SFM looks from the point, in the map of this class, with {_kept(c.all)} classes (above) and "
        f"with {_kept(c.few)} (below). Bright: much attention. SFM 1 comes before any CFM, so its two maps are equal.",
        f"Dashed: where the class is, {c.region.mean():.0%} of the area ({source}).",
    )
    text = "\n\n".join(textwrap.fill(paragraph, 34) for paragraph in paragraphs)
    axis.text(0, 0.98, text, va="top", fontsize=9, transform=axis.transAxes)


def _draw_class_shares(axis: Axes, c: Comparison) -> None:
    """Draw one bar for each CFM and run: how it divides the class's attention, and how uniform attention would."""
    bars = [(layer, run) for layer in range(len(c.few.attention.category)) for run in (c.all, c.few)]
    places = np.array([number + 0.4 * layer for number, (layer, _) in enumerate(bars)])
    shares = np.array([c.class_shares(run, layer).tolist() for layer, run in bars])  # bars×3
    starts = shares.cumsum(axis=1) - shares
    for (name, color), share, start in zip(SHARE_COLORS.items(), shares.T, starts.T, strict=True):
        drawn = axis.barh(places, share, left=start, color=color, height=0.8, label=name)
        written = [f"{part:.0%}" if part > 0.05 else "" for part in share]
        axis.bar_label(drawn, written, label_type="center", fontsize=9, color="white" if name == "itself" else "black")
    uniform = [float(c.present[run.result.kept.cpu()].float().mean()) for _, run in bars]
    axis.plot(uniform, places - 0.4, UNIFORM_MARKER, color="black", markersize=7, clip_on=False)
    axis.plot([], [], UNIFORM_MARKER, color="black", label="where blue would end if all classes got the same")
    axis.set_yticks(places, [f"CFM {layer + 1}, {_kept(run)}" for layer, run in bars], fontsize=9)
    axis.invert_yaxis()
    axis.set_xlim(0, 1)
    axis.xaxis.set_major_formatter(PercentFormatter(1))
    axis.spines[["top", "right"]].set_visible(False)
    number = f"{int(c.present.sum())} of the {len(c.present)} classes are present"
    axis.set_title(f"How CFM divides the attention of this class at the point ({number})", fontsize=10)
    axis.figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=9)
