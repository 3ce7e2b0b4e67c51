"""The attention of one class at one point, with all classes of the vocabulary kept and with K of them (paper, Fig. 2).

SFM attends within the map of one class. Before the first CFM that map does not depend on the other classes, so the
first layer's attention is the same however many are kept; from the second layer on, CFM has mixed the map with those
of all classes kept, redundant ones included.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from err_seg.modeling.escf import CFM, SFM
from err_seg.prediction.attention import Attention, escf_with, recording
from err_seg.prediction.model import ERRSeg
from err_seg.prediction.segmentation import Segmentation
from err_seg.utils.messages import did_you_mean, listed
from err_seg.visualization.text import first_synonym

# a class with a smaller share of the predicted pixels does not count as present
LEAST_AREA = 0.01


@dataclass(frozen=True)
class ClassAttention:
    """What the network did with one image and one K.

    Attributes:
        result: the prediction; says which classes were kept.
        attention: its queries and keys.
        place: which of the kept classes is the one looked at, from 0.
    """

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
            result = model.predict(image, vocabulary, num_kept=k)
        runs.append((result, attention))
    (few, _), _ = runs
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


def find_class(vocabulary: Sequence[str], name: str) -> int:
    """Return the index of a class, named by all its synonyms or by the first, in any case.

    Raises:
        ValueError: there is none.
    """
    wanted = name.strip().casefold()
    names = {first_synonym(entry).casefold(): i for i, entry in reversed(list(enumerate(vocabulary)))}
    names |= {entry.strip().casefold(): i for i, entry in enumerate(vocabulary)}
    if wanted not in names:
        hint = did_you_mean(wanted, names, f"they are {listed(map(first_synonym, vocabulary))}")
        raise ValueError(f"{name!r} is not one of the {len(vocabulary)} classes; {hint}")
    return names[wanted]
