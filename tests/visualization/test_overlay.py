"""Overlays: colours in the right places, contours between labels, a legend that fits."""

import numpy as np
import pytest
from PIL import Image

from err_seg.visualization import legend
from err_seg.visualization.colors import class_colors
from err_seg.visualization.legend import ROOM, SMALLEST
from err_seg.visualization.overlay import OPACITY, area_shares, overlay

NAMES = ["sky", "grass", "cat"]


def test_paint_contours_and_unpainted_pixels():
    image = np.full((6, 8, 3), 100, dtype=np.uint8)
    labels = np.zeros((6, 8), dtype=np.int64)
    labels[:, 4:] = 2
    labels[5, :] = 255
    drawn = np.asarray(overlay(image, labels, NAMES, legend=False)).astype(int)
    colors = class_colors(NAMES)
    for x, index in ((1, 0), (6, 2)):
        assert np.abs(drawn[2, x] - (100 * (1 - OPACITY) + colors[index] * OPACITY)).max() <= 1
    assert (drawn[5, 1] == 100).all()
    assert (drawn[2, 3] > drawn[2, 1]).any(), "a contour is lighter"


def test_legend_lists_what_is_there_largest_first():
    labels = np.array([[2, 2, 2, 0], [255, 2, 2, 0]])
    assert area_shares(labels, 3) == [(2, 5 / 8), (0, 2 / 8)]


@pytest.mark.parametrize("size", [(1, 1), (40, 30), (300, 500)])
def test_legend_fits_any_image(size):
    image, labels = np.zeros((*size, 3), dtype=np.uint8), np.zeros(size, dtype=np.int64)
    drawn = overlay(image, labels, ["a class with quite a long name, synonym"])
    assert drawn.height > size[0]
    assert drawn.width >= size[1]


SIZES = [(31, 31), (40, 900), (100, 150), (200, 1600), (1600, 200), (480, 640), (900, 1500)]  # height, width


def labels_of(num_classes, size, unlabelled=0):
    """A label map of a class at least a pixel each, class 0 the largest, with unlabelled pixels at the end."""
    labels = np.zeros(size, dtype=np.int64).ravel()
    labels[: 2 * num_classes : 2] = np.arange(num_classes)
    labels[len(labels) - unlabelled :] = -1
    return labels.reshape(size)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("num_classes", [1, 3, 25, 26, 150])
def test_legend_is_no_taller_than_its_image(size, num_classes):
    names = [f"{kind} {i}" for i, kind in enumerate(["thing", "stuff of a very long name", "山"] * 50)][:num_classes]
    image = overlay(
        np.zeros((*size, 3), np.uint8), labels_of(num_classes, size, 9), names, unlabeled_name="none of these"
    )
    assert size[0] < image.height <= 2 * size[0]
    assert size[1] <= image.width <= max(size[1], ROOM + 2 * SMALLEST)


def shown(monkeypatch, size, entries, last=()):
    """Return the names and shares that a legend shows."""
    drawn = []
    fit = legend._fit
    monkeypatch.setattr(legend, "_fit", lambda *args: drawn.append(fit(*args)) or drawn[-1])
    legend.add_legend(Image.new("RGB", size[::-1]), entries, last)
    return [(cell.name, cell.share) for column in drawn[-1] for cell in column]


def test_what_does_not_fit_is_summed_up(monkeypatch):
    entries = [legend.Entry((0, 0, 0), f"thing {i}", 0.9 / 150) for i in range(150)]
    nothing = legend.Entry((255, 255, 255), "none of these", 0.1)
    for size in SIZES:
        names = [name for name, _ in shown(monkeypatch, size, entries, [nothing])]
        count = len(names) - 2
        assert names == [*(f"thing {i}" for i in range(count)), f"… and {150 - count} more", "none of these"]
        assert count <= 24
        assert count == 24 or size[0] <= 100, "there is room for more"
    assert shown(monkeypatch, (480, 640), entries[:25]) == [(f"thing {i}", "0.6%") for i in range(25)]
    assert shown(monkeypatch, (480, 640), entries)[-1] == ("… and 126 more", "75.6%")
    assert shown(monkeypatch, (10, 10), entries)[-1] == ("… and 148 more", "88.8%")


def test_columns_are_as_wide_as_their_own_names():
    """One long name does not cost the others their places."""
    names = ["stuff of a very long name indeed", *(f"thing {i}" for i in range(11))]
    long = overlay(np.zeros((300, 900, 3), np.uint8), labels_of(12, (300, 900)), names)
    short = overlay(np.zeros((300, 900, 3), np.uint8), labels_of(12, (300, 900)), ["thing", *names[1:]])
    line = round(1.6 * 12)
    assert long.height - short.height <= line


def test_sizes_must_agree():
    with pytest.raises(ValueError, match="must be equal"):
        overlay(np.zeros((4, 4, 3), np.uint8), np.zeros((4, 5), np.int64), NAMES)
