"""A method that answers one word at a time with a mask and a score, as a predictor; here ERR-Seg itself, asked so.

    err-seg evaluate --predictor examples/predictors/one_word_at_a_time.py:OneWordAtATime \\
        DATASETS.TEST "['mini_world_test_24']" OUTPUT_DIR output/one_word

Put your own method in the place of ``find``. The answers compete by their scores, pixel by pixel. A pixel that is in no
mask belongs to none of the words.
"""

import numpy as np

import err_seg

NONE = -1


class OneWordAtATime:
    """Merges the masks of all words."""

    def __init__(self) -> None:
        self.model = err_seg.load("mini", device="cpu")
        self.settings = {"model": "mini"}  # recorded with the results

    def find(self, image: np.ndarray, word: str) -> tuple[np.ndarray, np.ndarray]:
        """Return where the word is, (H, W) bool, and how sure that is, (H, W) float."""
        (result,) = self.model.predict([image], [word])  # which competes with common names
        return result.labels.numpy() == 0, result.scores.numpy()

    def __call__(self, image: np.ndarray, names: list[str]) -> np.ndarray:
        """Label an image (H, W, 3), uint8 RGB, with N names."""
        labels, best = np.full(image.shape[:2], NONE), np.zeros(image.shape[:2])
        for index, name in enumerate(names):
            mask, scores = self.find(image, name)
            wins = mask & (scores > best)
            labels[wins], best[wins] = index, scores[wins]
        return labels
