"""Contrast: names that compete with those of a vocabulary, and whose pixels belong to none of its classes.

The network compares names with each other. Of a single name it can therefore only say that it is everywhere, unless
others compete with it; CRM makes these cheap.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from err_seg.text.vocabularies import synonym_key
from err_seg.utils.messages import listed

COMMON, NONE, AUTO = "common", "none", "auto"
FEW_NAMES = 12
"""Vocabularies of fewer names compete with the common ones by default: more of them usually cover an image."""
SAME_MEANING = 0.9
"""Cosine similarity of the text embeddings from which two names mean the same."""


@dataclass(frozen=True)
class Contrast:
    """The names that compete with a vocabulary.

    Attributes:
        names: C names.
        left_out: further names, which do not compete since a class means the same; each with this class.
    """

    names: tuple[str, ...] = ()
    left_out: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        """Say how many names compete, and which do not."""
        pairs = [f"{name} (= {own})" for name, own in self.left_out.items() if synonym_key(name) != synonym_key(own)]
        return f"{len(self.names):,} contrast names" + (f", without {listed(pairs)}" if pairs else "")


def distinct(text: Tensor) -> list[int]:
    """Return which of the names with (T, D) unit vectors do not mean the same as an earlier one."""
    later = (text @ text.T >= SAME_MEANING).triu(1).cpu()
    dropped = torch.zeros(len(text), dtype=torch.bool)
    for place, same in enumerate(later):
        if not dropped[place]:
            dropped |= same
    return (~dropped).nonzero()[:, 0].tolist()


def competing(names: Sequence[str], rows: Tensor, classes: Sequence[str], text: Tensor) -> tuple[Contrast, Tensor]:
    """Leave out of contrast names those that mean the same as a class.

    Args:
        names, rows: contrast names and their (C, D) unit vectors.
        classes, text: the vocabulary and its (T, D) unit vectors; of classes by example, what these mean is compared.

    Returns:
        The names that compete, and their rows.
    """
    own = {synonym_key(name): name for name in classes}
    shown = getattr(classes, "rows", {})
    meanings = [shown[name].meaning.to(text) if name in shown else row for name, row in zip(classes, text, strict=True)]
    similarity, nearest = (rows @ torch.stack(meanings).T).max(dim=1)
    is_same = (similarity >= SAME_MEANING).tolist()
    left_out: dict[str, str] = {}
    for place, name in enumerate(names):
        if synonym_key(name) in own or is_same[place]:
            left_out[name] = own.get(synonym_key(name), classes[int(nearest[place])])
    kept = [place for place, name in enumerate(names) if name not in left_out]
    return Contrast(tuple(names[place] for place in kept), left_out), rows[kept]
