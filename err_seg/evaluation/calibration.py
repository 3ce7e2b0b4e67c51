"""How far confidence can be trusted: ECE, Brier score and risk by coverage, from counts of pixels; and its fit.

Confidences, scores and leads are counted in 3,000 bins of equal width over 0..1, 200 for each of ECE's 15. All pixels
of a bin count as its centre, which moves a confidence by at most 1/6000.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from err_seg.prediction.calibration import NARROWEST, Calibration
from err_seg.prediction.class_maps import ClassMaps

Counts = NDArray[np.int64]
"""Wrong and right pixels by ascending confidence, score or lead: (..., BINS, 2)."""
BINS, ECE_BINS = round(0.5 / NARROWEST), 15
CENTRES: NDArray[np.float64] = (np.arange(BINS) + 0.5) / BINS
GROUPS = 3  # of predicted classes: seen in training, unseen, neither
CALIBRATION_METRICS = ("ECE", "Brier", "AURC", "ECE-seen", "ECE-unseen")
COVERAGES = range(5, 101, 5)  # percent


def confidence_of(result: ClassMaps) -> Tensor:
    """Return (H, W) float32 in 0..1: the calibrated confidence of a result, else its scores."""
    return result.confidence if result.calibration else result.scores


def count_pixels(values: Tensor, is_right: Tensor, group: Tensor | int = 0, groups: int = 1) -> Tensor:
    """Count pixels in bins: (groups, BINS, 2) int64, wrong and right ones.

    ``values`` are in 0..1, ``is_right`` bool and ``group`` in 0..groups-1, all (n,).
    """
    bins = (values * BINS).long().clamp(max=BINS - 1)
    cells = (group * BINS + bins) * 2 + is_right.long()
    return torch.bincount(cells, minlength=groups * BINS * 2).view(groups, BINS, 2)


def group_metrics(counts: Tensor) -> dict[str, float]:
    """Compute the metrics of (GROUPS, BINS, 2) counts, in percent; ECE also of predicted seen and unseen classes."""
    groups = counts.cpu().numpy()
    found = confidence_metrics(CENTRES, groups.sum(axis=0))
    if groups[:2].any():
        found |= {name: confidence_metrics(CENTRES, groups[i])["ECE"] for i, name in enumerate(CALIBRATION_METRICS[3:])}
    return found


def confidence_metrics(confidences: NDArray[np.float64], counts: Counts) -> dict[str, float]:
    """Compute ECE, Brier score and AURC in percent, NaN without pixels, of (n, 2) counts at (n,) confidences.

    - ``ECE``: how far mean confidence and share of right pixels are apart in 15 bins of equal width, by pixels;
    - ``Brier``: mean square of confidence minus 1 or 0, for right and wrong pixels;
    - ``AURC``: the area under the curve of :func:`risk_coverage`, which depends on the order of confidences alone: for
      every pixel the share of wrong ones among those that are at least as confident, averaged.
    """
    (wrong, right), pixels = counts.T, counts.sum(axis=1)
    gaps = np.bincount((confidences * ECE_BINS).astype(int).clip(max=ECE_BINS - 1), confidences * pixels - right)
    squares = right * (1 - confidences) ** 2 + wrong * confidences**2
    covered, errors = (np.cumsum(part[::-1]) for part in (pixels, wrong))
    risks = pixels[::-1] * errors / covered.clip(min=1)
    sums, total = (np.abs(gaps).sum(), squares.sum(), risks.sum()), pixels.sum() or np.nan
    return {name: float(100 * value / total) for name, value in zip(CALIBRATION_METRICS, sums, strict=False)}


def risk_coverage(counts: Counts) -> list[tuple[int, float]]:
    """Return risk by coverage in percent: the share of wrong pixels among the 5, 10, ... 100 % most confident ones."""
    covered, errors = (np.append(0, np.cumsum(part[::-1])) for part in (counts.sum(axis=1), counts[:, 0]))
    wanted = [share / 100 * covered[-1] for share in COVERAGES if covered[-1]]
    found = np.interp(wanted, covered, errors)
    return [(share, float(100 * part / whole)) for share, part, whole in zip(COVERAGES, found, wanted, strict=False)]


def fit(leads: Counts) -> tuple[float, float]:
    """Fit temperature and offset of a :class:`Calibration` to (BINS, 2) counts of pixels by lead.

    They maximise the likelihood of Platt's targets, which keep both finite; the same counts give the same numbers.

    Raises:
        ValueError: no or all pixels are right, or those with a larger lead are not more often right.
    """
    from scipy.optimize import minimize  # here, since prediction imports this module and fits nothing
    from scipy.special import expit

    (wrong, right), pixels = leads.T, leads.sum(axis=1)
    if not (wrong.any() and right.any()):
        raise ValueError(f"{right.sum():,} of {leads.sum():,} labelled pixels are right; calibration needs both kinds")
    logits = np.log(CENTRES / (1 - CENTRES))
    target = right * (right.sum() + 1) / (right.sum() + 2) + wrong / (wrong.sum() + 2)

    def loss(parameters: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        z = parameters[0] * logits + parameters[1]
        errors = pixels * expit(z) - target
        value = pixels @ np.logaddexp(0, z) - target @ z
        return value / pixels.sum(), np.array([errors @ logits, errors.sum()]) / pixels.sum()

    slope, offset = minimize(loss, (1.0, 0.0), jac=True, method="BFGS", options={"gtol": 1e-9}).x.tolist()
    if slope < 1e-3:
        raise ValueError("pixels of which the network is surer are not more often right; there is nothing to calibrate")
    return 1 / slope, offset


def cross_validate(leads: Counts, scores: Counts) -> list[tuple[dict[str, float], dict[str, float]]]:
    """For each part of the images, return the metrics of its scores, and of its confidence fitted to the other parts.

    Both arguments are (parts, BINS, 2); parts without pixels are left out. Errors are those of :func:`fit`.
    """
    found = []
    for own, own_scores in zip(leads, scores, strict=True):
        if own.any():
            confidences = Calibration(*fit(leads.sum(axis=0) - own)).confidence(torch.from_numpy(CENTRES)).numpy()
            found.append((confidence_metrics(CENTRES, own_scores), confidence_metrics(confidences, own)))
    return found
