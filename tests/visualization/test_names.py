"""Names on regions."""

import numpy as np
import pytest
from PIL import Image

from err_seg.visualization.overlay import overlay, write_names


def written(labels, vocabulary, size=None):
    """Return where something was written on a grey image: (H, W) bool."""
    image = Image.new("RGB", size or labels.shape[::-1], (128, 128, 128))
    write_names(image, labels, vocabulary)
    return (np.asarray(image) != 128).any(axis=2)


def test_a_name_stands_inside_its_region():
    labels = np.zeros((300, 400), dtype=int)
    labels[:, 340:] = 1
    where = written(labels, ["cat", "a name without any room here"])
    assert where[:, :340].any()
    assert not where[:, 340:].any()
    rows, columns = np.nonzero(where)
    assert 160 < columns.mean() < 180
    assert 140 < rows.mean() < 160


def test_a_hole_gets_no_name():
    labels = np.ones((300, 300), dtype=int)
    labels[60:240, 60:240] = 0
    where = written(labels, ["hole", "frame"])
    assert where[60:240, 60:240].any()
    rows, columns = np.nonzero(where & (labels == 1))
    assert len(rows) > 0
    assert min(rows.min(), 300 - rows.max(), columns.min(), 300 - columns.max()) < 60


def test_names_do_not_touch_and_specks_have_none():
    labels = np.arange(40 * 40).reshape(40, 40).repeat(10, 0).repeat(10, 1)
    assert not written(labels, [f"thing {i}" for i in range(1600)]).any()
    labels = np.arange(10).repeat(14)[:, None].repeat(200, 1)  # ten stripes, each as high as a line
    assert written(labels, ["stripe"] * 10).any()


@pytest.mark.parametrize("color", [(0, 0, 0), (255, 255, 255), (255, 0, 0), (128, 128, 128)])
def test_names_can_be_read_on_any_colour(color):
    image = Image.new("RGB", (200, 100), color)
    write_names(image, np.zeros((100, 200), dtype=int), ["cat"])
    found = np.asarray(image)
    assert (found == 255).all(axis=2).any()
    assert (found == 0).all(axis=2).any()


def test_overlay_writes_them_on_request():
    image, labels = np.full((200, 200, 3), 128, np.uint8), np.zeros((200, 200), dtype=int)
    plain, named = (np.asarray(overlay(image, labels, ["cat"], names=names)) for names in (False, True))
    assert plain.shape == named.shape
    assert not np.array_equal(plain[:200], named[:200])
    assert np.array_equal(plain[200:], named[200:])
