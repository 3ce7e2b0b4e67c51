"""The class names of a prediction, and which pixels belong to none of the classes."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch

from err_seg.prediction.class_maps import UNLABELED
from err_seg.prediction.segmentation import Segmentation
from err_seg.text.prompts import Vocabulary, VocabularyError, carrying, check_vocabulary
from err_seg.text.vocabularies import VocabularySource, expand_names, plain_names
from err_seg.visualization.colors import spread_colors

FEW = 12  # so many classes have colours far apart; of more, many would be no farther from each other than they are


class LabelSetError(ValueError):
    """Class names or a background that cannot be used; the message says which and why."""


@dataclass(frozen=True)
class LabelSet:
    """The classes that pixels may belong to.

    Attributes:
        classes: the N class names, in label order.
        background: further names that compete for the pixels and whose pixels become :data:`UNLABELED`.
        threshold: pixels whose highest probability is below this become :data:`UNLABELED`; in 0..1.
    """

    classes: tuple[str, ...]
    background: tuple[str, ...] = ()
    threshold: float = 0.0

    @property
    def vocabulary(self) -> Vocabulary:
        """All names that the network chooses from: classes, then background."""
        return carrying((*self.classes, *self.background), self.classes)

    def labels(self, result: Segmentation) -> np.ndarray:
        """Return (H, W) int16, int32 beyond 32,767 names: for every pixel its class, or :data:`UNLABELED`.

        Args:
            result: a prediction with :attr:`vocabulary`.
        """
        labels = result.labels.to(torch.promote_types(result.labels.dtype, torch.int8))  # UNLABELED is negative
        unlabeled = labels >= len(self.classes)
        if self.threshold > 0:
            unlabeled |= result.scores < self.threshold
        return labels.masked_fill(unlabeled, UNLABELED).cpu().numpy()


def without_empty(labels: np.ndarray, image: np.ndarray) -> np.ndarray:
    """Return labels (H, W) that are :data:`UNLABELED` where an image (H, W, 3) is masked, since it holds no data."""
    return np.where(np.ma.getmaskarray(image)[:, :, 0], labels.dtype.type(UNLABELED), labels)


def split_names(text: str) -> Vocabulary:
    """Split "cat, dog, grass" at commas; or at ";" and line breaks, if there are any: commas then join synonyms.

    A name of a vocabulary ("ade150") stands for its names. Lines are names alone, see :func:`plain_names`.
    """
    if "\n" in text.strip():
        plain_names(text, "the list of classes")
    separators = "\n;" if "\n" in text or ";" in text else ","
    for separator in separators:
        text = text.replace(separator, "\n")
    names = (name.strip(", \t\r") for name in text.split("\n"))
    return expand_names(name for name in names if name)


def parse_label_set(classes: VocabularySource, background: Iterable[str] = ()) -> LabelSet:
    """Combine classes and the values of ``--background``; up to a dozen classes get colours that are far apart.

    Args:
        classes: class names, or what stands for them, see :func:`err_seg.data.read_vocabulary`; names that are also
            in ``background`` count as background.
        background: each a number in 0..1 (a threshold) or names, separated as in :func:`split_names`.

    Raises:
        LabelSetError: no or repeated names, a threshold out of range, or classes that are all background.
    """
    threshold = 0.0
    names: list[str] = []
    for value in background:
        try:
            threshold = float(value)
        except ValueError:
            names += split_names(value)
            continue
        if not 0 <= threshold <= 1:
            raise LabelSetError(f"a background threshold is a probability in 0..1, not {value}")
    outside = tuple(dict.fromkeys(names))
    try:
        given = expand_names(classes)
        inside = carrying((name for name in given if name not in outside), given)
        check_vocabulary((*inside, *outside))
    except VocabularyError as error:
        raise LabelSetError(str(error)) from error
    if not inside:
        raise LabelSetError("no class names besides the background; name at least one class to look for")
    return LabelSet(spread_colors(inside, inside) if len(inside) <= FEW else inside, outside, threshold)
