"""Overlays: colours in the right places, contours between labels, a legend that fits."""

import numpy as np
import pytest

from err_seg.colors import class_colors
from err_seg.visualize import OPACITY, area_shares, overlay

NAMES = ["sky", "grass", "cat"]


def test_paint_contours_and_unpainted_pixels():
    picture = np.full((6, 8, 3), 100, dtype=np.uint8)
    labels = np.zeros((6, 8), dtype=np.int64)
    labels[:, 4:] = 2
    labels[5, :] = 255
    image = np.asarray(overlay(picture, labels, NAMES, legend=False)).astype(int)
    colors = class_colors(NAMES)
    for x, index in ((1, 0), (6, 2)):
        assert np.abs(image[2, x] - (100 * (1 - OPACITY) + colors[index] * OPACITY)).max() <= 1
    assert (image[5, 1] == 100).all()
    assert (image[2, 3] > image[2, 1]).any(), "a contour is lighter"


def test_legend_lists_what_is_there_largest_first():
    labels = np.array([[2, 2, 2, 0], [255, 2, 2, 0]])
    assert area_shares(labels, 3) == [(2, 5 / 8), (0, 2 / 8)]


@pytest.mark.parametrize("size", [(1, 1), (40, 30), (300, 500)])
def test_legend_fits_any_picture(size):
    picture, labels = np.zeros((*size, 3), dtype=np.uint8), np.zeros(size, dtype=np.int64)
    image = overlay(picture, labels, ["a class with quite a long name, synonym"])
    assert image.height > size[0]
    assert image.width >= size[1]


def test_many_classes_share_a_line():
    rng = np.random.default_rng(0)
    image = overlay(
        np.zeros((200, 300, 3), np.uint8), rng.integers(0, 60, (200, 300)), [f"thing {i}" for i in range(60)]
    )
    assert image.height < 600


def test_sizes_must_agree():
    with pytest.raises(ValueError, match="must be equal"):
        overlay(np.zeros((4, 4, 3), np.uint8), np.zeros((4, 5), np.int64), NAMES)
