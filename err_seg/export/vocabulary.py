"""A vocabulary as a file: names and text embeddings, which an exported network takes as input."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from err_seg.files import atomic_write
from err_seg.modeling.err_seg import ERRSeg


def save_vocabulary(model: ERRSeg, names: Sequence[str], file: Path) -> None:
    """Write ``names`` (T,) text and ``text`` (T, D) float32 unit vectors as ``.npz``, complete or not at all.

    Raises:
        VocabularyError: names that the network cannot read, or fewer of them than CRM ranks (3).
    """
    embeddings = model.embed_vocabulary(names).float().cpu().numpy()
    with atomic_write(file) as partial, open(partial, "wb") as stream:
        np.savez(stream, names=np.array(names), text=embeddings)
