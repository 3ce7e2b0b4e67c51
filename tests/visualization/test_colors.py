import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from err_seg.visualization.colors import BASE_COLORS, class_colors, oklab

words = st.text("abcdefgh", min_size=1, max_size=4)


def nearest_distance(colors):
    lab = oklab(colors)
    return (np.linalg.norm(lab[:, None] - lab, axis=2) + 9 * np.eye(len(lab))).min()


def test_oklab_of_known_colours():
    known = np.array([[255, 255, 255], [0, 0, 0], [255, 0, 0]], dtype=np.uint8)
    np.testing.assert_allclose(oklab(known), [[1, 0, 0], [0, 0, 0], [0.62796, 0.22486, 0.12585]], atol=1e-4)


def test_base_colours_are_far_apart_and_neither_dark_nor_white():
    assert nearest_distance(BASE_COLORS) > 0.13
    lightness = oklab(BASE_COLORS)[:, 0]
    assert lightness.min() > 0.4
    assert lightness.max() < 0.95


@settings(deadline=None)
@given(st.lists(words, max_size=24, unique=True))
def test_up_to_24_classes_have_well_separated_colours(names):
    colors = class_colors(names)
    assert colors.shape == (len(names), 3)
    assert colors.dtype == np.uint8
    if len(names) > 1:
        assert nearest_distance(colors) > 0.13


@settings(deadline=None)
@given(st.lists(words, min_size=1, max_size=40, unique=True))
def test_the_first_claimant_keeps_its_own_colour(names):
    own = [tuple(class_colors([name])[0]) for name in names]
    given_colors = [tuple(color) for color in class_colors(names)]
    for index, color in enumerate(own):
        if color not in own[:index]:
            assert given_colors[index] == color


def test_colours_are_the_same_everywhere():
    # Fixed values: a change would recolour everybody's images.
    colors = class_colors(["sky", "grass", "water", "earth", "person"])
    assert colors.tolist() == class_colors([" Sky", "GRASS", "water ", "earth", "person"]).tolist()
    assert colors.tobytes().hex(" ", 3) == "78ffff 69ff96 0000ff b47800 ffa596"


def test_equal_names_share_a_colour_and_do_not_take_others():
    first, second, third = class_colors(["bag", "cup", "bag"])
    assert first.tolist() == third.tolist() != second.tolist()


@pytest.mark.parametrize("count", [25, 171, 847])
def test_large_vocabularies_have_distinct_colours(count):
    names = [f"class {index}" for index in range(count)]
    colors = class_colors(names)
    assert len(np.unique(colors, axis=0)) == count
    assert nearest_distance(colors) > 0.02
    np.testing.assert_array_equal(colors, class_colors(names))


def test_colours_of_huge_vocabularies_take_seconds():
    """8,000 names took a minute, and the time grew with the square. The first thousand look as they do alone."""
    names = [f"class {index}" for index in range(40_000)]
    began = time.process_time()
    colors = class_colors(names)
    assert time.process_time() - began < 20
    np.testing.assert_array_equal(colors[:1000], class_colors(names[:1000]))
    lightness = oklab(colors)[:, 0]
    assert lightness.min() > 0.4
    assert lightness.max() < 0.96
    assert len(np.unique(colors, axis=0)) > 39_000


def test_no_classes():
    assert class_colors([]).shape == (0, 3)
