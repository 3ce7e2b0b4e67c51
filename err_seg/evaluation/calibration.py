"""How far confidence can be trusted: ECE, Brier score and risk by coverage, from counts of pixels; and its fit.

Confidences, scores and leads are counted in 3,000 bins of equal width over 0..1, 200 for each of ECE's 15. All pixels
of a bin count as its centre, which moves a confidence by at most 1/6000, and as in random order among themselves.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from torch import Tensor

from err_seg.prediction.calibration import NARROWEST, Calibration
from err_seg.prediction.class_maps import ClassMaps

BINS, ECE_BINS = round(0.5 / NARROWEST), 15
CENTRES: NDArray[np.float64] = (np.arange(BINS) + 0.5) / BINS
SEEN, UNSEEN, NEITHER = range(3)
"""Groups of predicted classes."""
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


def sparse_counts(counts: Tensor) -> list[list[int]]:
    """List place and number of the counts (3, BINS, 2) that are not 0, JSON-able."""
    flat = counts.cpu().flatten()
    return torch.stack([flat.nonzero()[:, 0], flat[flat > 0]], dim=1).tolist()


def dense_counts(listed: Sequence[Sequence[int]]) -> Tensor:
    """Return the counts that :func:`sparse_counts` has listed."""
    counts = torch.zeros(3 * BINS * 2, dtype=torch.int64)
    places, numbers = torch.tensor(listed, dtype=torch.int64).view(-1, 2).T
    return counts.index_add(0, places, numbers).view(3, BINS, 2)


def class_groups(num_classes: int, seen_and_unseen: Sequence[Sequence[int]]) -> Tensor:
    """Return the group (num_classes,) int64 of each class."""
    groups = torch.full((num_classes,), NEITHER)
    for group, classes in enumerate(seen_and_unseen):
        groups[list(classes)] = group
    return groups


def group_metrics(counts: Tensor) -> dict[str, float]:
    """Compute the metrics of (3, BINS, 2) counts, in percent; of predicted seen and unseen classes, ECE as well."""
    groups = counts.cpu().numpy()
    found = confidence_metrics(CENTRES, groups.sum(axis=0))
    for name, group in (("ECE-seen", SEEN), ("ECE-unseen", UNSEEN)):
        if groups[[SEEN, UNSEEN]].any():
            found[name] = confidence_metrics(CENTRES, groups[group])["ECE"]
    return found


def confidence_metrics(confidences: NDArray[np.float64], counts: NDArray[np.int64]) -> dict[str, float]:
    """Compute ECE, Brier score and AURC in percent, NaN without pixels.

    - ``ECE``: how far mean confidence and share of right pixels are apart in 15 bins of equal width, by pixels;
    - ``Brier``: mean square of confidence minus 1 or 0, for right and wrong pixels;
    - ``AURC``: the area under the curve of :func:`risk_coverage`: the mean risk over all coverages. It depends on the
      order of confidences alone.

    Args:
        confidences: (n,), ascending.
        counts: (n, 2), wrong and right pixels of each.
    """
    wrong, right = counts.T
    pixels, total = wrong + right, counts.sum()
    if not total:
        return dict.fromkeys(CALIBRATION_METRICS[:3], float("nan"))
    bins = np.minimum((confidences * ECE_BINS).astype(int), ECE_BINS - 1)
    gaps = np.bincount(bins, confidences * pixels - right)
    squares = right * (1 - confidences) ** 2 + wrong * confidences**2
    new, errors = pixels[::-1], wrong[::-1]  # the most confident first
    before, errors_before = np.cumsum(new) - new, np.cumsum(errors) - errors
    rate = errors / np.maximum(new, 1)
    areas = errors + (errors_before - rate * before) * np.log1p(new / np.maximum(before, 1))
    sums = (np.abs(gaps).sum(), squares.sum(), areas.sum())
    return {name: 100 * float(value / total) for name, value in zip(CALIBRATION_METRICS, sums, strict=False)}


def risk_coverage(counts: NDArray[np.int64]) -> list[tuple[int, float]]:
    """Return risk by coverage in percent: the share of wrong pixels among the 5, 10, ... 100 % most confident ones.

    ``counts`` are (n, 2), wrong and right pixels by ascending confidence; without pixels there is no curve.
    """
    pixels, errors = (np.append(0, np.cumsum(part[::-1])) for part in (counts.sum(axis=1), counts[:, 0]))
    covered = [share / 100 * pixels[-1] for share in COVERAGES if pixels[-1]]
    found = np.interp(covered, pixels, errors)
    return [(share, float(100 * part / whole)) for share, part, whole in zip(COVERAGES, found, covered, strict=False)]


def fit(leads: NDArray[np.int64]) -> tuple[float, float]:
    """Fit temperature and offset of a :class:`Calibration` to (BINS, 2) counts of wrong and right pixels by lead.

    They maximise the likelihood of Platt's targets, which keep both finite; the same counts give the same numbers.

    Raises:
        ValueError: no or all pixels are right, or those with a larger lead are not more often right.
    """
    wrong, right = leads.T
    if not (wrong.any() and right.any()):
        raise ValueError(f"{right.sum():,} of {leads.sum():,} labelled pixels are right: calibration needs both kinds")
    logits, pixels = np.log(CENTRES / (1 - CENTRES)), wrong + right
    target = right * (right.sum() + 1) / (right.sum() + 2) + wrong / (wrong.sum() + 2)

    def loss(parameters: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        z = parameters[0] * logits + parameters[1]
        errors = pixels / (1 + np.exp(-z)) - target
        gradient = np.array([errors @ logits, errors.sum()])
        return float(pixels @ np.logaddexp(0, z) - target @ z) / pixels.sum(), gradient / pixels.sum()

    slope, offset = minimize(loss, (1.0, 0.0), jac=True, method="BFGS", options={"gtol": 1e-9}).x.tolist()
    if slope < 1e-3:
        raise ValueError("pixels of which the network is surer are not more often right: there is nothing to calibrate")
    return 1 / slope, offset


def cross_validate(
    leads: NDArray[np.int64], scores: NDArray[np.int64]
) -> list[tuple[dict[str, float], dict[str, float]]]:
    """For each part of the images, return the metrics of its scores, and of its confidence fitted to the other parts.

    Both arguments are counts (parts, BINS, 2). Errors are those of :func:`fit`.
    """
    found = []
    for own, own_scores in zip(leads, scores, strict=True):
        if not own.any():
            continue
        confidences = Calibration(*fit(leads.sum(axis=0) - own)).confidence(torch.from_numpy(CENTRES)).numpy()
        found.append((confidence_metrics(CENTRES, own_scores), confidence_metrics(confidences, own)))
    return found
