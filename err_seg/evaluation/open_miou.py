"""Open mIoU: mistaking a class for a similar one costs less (Zhou et al., "Rethinking Evaluation Metrics of
Open-Vocabulary Segmentation", arXiv 2311.03352). ``TEST.METRICS: [open_mIoU]`` adds it to the results.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from err_seg.plugins import METRICS
from err_seg.utils.errors import ConfigError


@METRICS.register("open_mIoU")
def open_miou_by_wordnet(confusion: NDArray[np.int64], class_names: Sequence[str]) -> dict[str, float]:
    """Compute Open mIoU with :func:`wordnet_similarity`.

    Raises:
        ConfigError: WordNet cannot be read.
    """
    return {"Open-mIoU": open_miou(confusion, wordnet_similarity(class_names))}


def open_miou(confusion: NDArray[np.int64], similarity: NDArray[np.float64]) -> float:
    """Compute mIoU, in percent, where a pixel is right as far as its class is similar to that of the ground truth.

    As in mIoU-v0.6, the sum over the classes with ground truth is divided by the number of those with ground truth or
    predictions.

    Args:
        confusion: (N, N) counts of pixels, [prediction, ground truth]; a row N is of pixels predicted as none of the N.
        similarity: (N, N) in 0..1, with ones on the diagonal.
    """
    n = len(similarity)
    right = (confusion[:n] * similarity).sum(axis=0)
    truth = confusion.sum(axis=0).astype(np.float64)
    wrong = (confusion[:n] * (1 - similarity)).sum(axis=1)  # what each class was predicted for in vain
    present = truth > 0
    iou = right[present] / (truth + wrong)[present]
    counted = int((present | (right + wrong > 0)).sum())
    return 100 * float(iou.sum()) / counted if counted else float("nan")


def wordnet_similarity(class_names: Sequence[str]) -> NDArray[np.float64]:
    """Return the path similarity of names in WordNet, (N, N) in 0..1, by the first noun sense of each synonym.

    Of several synonyms the most similar pair counts. Of a name that WordNet lacks its last word is taken ("window" of
    "stained window"); a name without any sense is similar to none but itself.

    Raises:
        ConfigError: nltk or its corpus of WordNet is missing.
    """
    try:
        from nltk.corpus import wordnet

        senses = [[sense for word in name.split(",") for sense in _first_sense(wordnet, word)] for name in class_names]
    except (ImportError, LookupError) as error:
        raise ConfigError(
            "TEST.METRICS: open_mIoU needs WordNet (pip install 'err_seg[wordnet]', then python -m nltk.downloader "
            f"wordnet): {type(error).__name__}"
        ) from error
    similarity = np.eye(len(senses))
    for i, own in enumerate(senses):
        for j in range(i):
            pairs = [a.path_similarity(b) or 0.0 for a in own for b in senses[j]]
            similarity[i, j] = similarity[j, i] = max(pairs, default=0.0)
    return similarity


def _first_sense(wordnet: Any, word: str) -> list[Any]:
    words = word.strip().lower().replace("-", " ").split()
    found = (wordnet.synsets("_".join(part), pos="n") for part in (words, words[-1:]))
    return next(filter(None, found), [])[:1]
