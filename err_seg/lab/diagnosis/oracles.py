"""Oracles: what an ideal part of the network would make of a label map.

Each oracle corrects wrong pixels and leaves right ones, so that every class's IoU, and with it mIoU, can only rise: a
pixel more counts for the class that is there, and one less as a false positive of another class.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

Labels = NDArray[np.int64]
Mask = NDArray[np.bool_]


def corrected(labels: Labels, truth: Labels, where: Mask) -> Labels:
    """Put the ground truth in the place of labels (H, W), where the mask says so."""
    return np.where(where, truth, labels)


def regions(labels: Labels) -> NDArray[np.int64]:
    """Number the connected regions (4 neighbours) of equal labels (H, W): (H, W), from 0."""
    numbered, total = np.zeros(labels.shape, np.int64), 0
    for value in np.unique(labels):
        count, numbers = cv2.connectedComponents((labels == value).astype(np.uint8), connectivity=4)
        numbered += np.where(numbers > 0, numbers - 1 + total, 0)
        total += count - 1
    return numbered


def majority_is(labels: Labels, truth: Labels, ignore_label: int) -> Mask:
    """Find pixels (H, W) that are right if each region of the labels gets the class that most of its pixels have."""
    numbered, counted = regions(labels), truth != ignore_label
    classes = int(truth.max()) + 1
    pairs, pixels = np.unique((numbered * classes + truth)[counted], return_counts=True)
    pairs = pairs[np.argsort(pixels, kind="stable")]
    majority = np.full(int(numbered.max()) + 1, -1)
    majority[pairs // classes] = pairs % classes  # where a region occurs several times, the last assignment stays
    return counted & (majority[numbered] == truth)


def near_border(truth: Labels, width: int) -> Mask:
    """Find pixels (H, W) at most so many pixels (chessboard distance) from one of another class in the ground truth."""
    side = np.ones((2 * width + 1,) * 2, np.uint8)
    values = truth.astype(np.int32).astype(np.float32)  # of which OpenCV finds extremes; exact up to 2^24
    return cv2.dilate(values, side) != cv2.erode(values, side)


def similar_pairs(labels: Labels, truth: Labels, similarity: NDArray[np.float64], least: float, ignore: int) -> Mask:
    """Find pixels (H, W) whose class is at least so similar, in 0..1, to that of the ground truth."""
    counted = truth != ignore
    found = np.zeros(labels.shape, dtype=bool)
    found[counted] = similarity[labels[counted], truth[counted]] >= least
    return found
