"""The mean Dice coefficient, in every evaluation: ``TEST.METRICS: [dice]``.

A metric is a function of the counted pixels. It may return several values, each under a name of its own.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from err_seg.plugins import METRICS

__version__ = "1.0"


@METRICS.register("dice")
def mean_dice(confusion: NDArray[np.int64], class_names: Sequence[str]) -> dict[str, float]:
    """Compute 2·|P ∩ G| / (|P| + |G|), averaged over the classes in the ground truth.

    Args:
        confusion: (N, N) pixels, [prediction, ground truth].
        class_names: the N names.

    Returns:
        "mDice" in percent; NaN if there is no ground truth.
    """
    predicted, truth = confusion.sum(axis=1), confusion.sum(axis=0)
    present = truth > 0
    dice = 2 * confusion.diagonal()[present] / (predicted + truth)[present]
    return {"mDice": 100 * float(dice.mean()) if present.any() else float("nan")}
