"""A vocabulary as a file: names and text embeddings, which an exported network takes as input."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from err_seg.prediction.model import ERRSeg
from err_seg.text.prompts import VocabularyError
from err_seg.utils.files import atomic_write
from err_seg.utils.fingerprint import weights_digest


def save_vocabulary(model: ERRSeg, names: Sequence[str], file: Path) -> None:
    """Write a vocabulary as ``.npz``, complete or not at all.

    It holds ``names`` (T,) text, ``text`` (T, D) float32 unit vectors, and ``weights``, the digest of the weights that
    computed the vectors: with other weights, a network computes nothing meaningful from them.

    Raises:
        VocabularyError: the network cannot read the names, or there are fewer of them than CRM ranks (3).
    """
    fewest = model.head.crm.num_ranks
    if len(names) < fewest:
        raise VocabularyError(
            f"an exported network takes {fewest} classes or more, got {len(names)}; add some that the images do not "
            'show, such as "sky" or "wall"'
        )
    embeddings = model.embed_vocabulary(names).float().cpu().numpy()
    with atomic_write(file) as partial, open(partial, "wb") as stream:
        np.savez(stream, names=np.array(names), text=embeddings, weights=np.array(weights_digest(model)))
