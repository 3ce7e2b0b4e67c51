import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from err_seg.text.prompts import Vocabulary
from err_seg.visualization.colors import BASE_COLORS, class_colors, oklab, spread_colors

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


@settings(deadline=None)
@given(st.lists(words, min_size=1, max_size=30, unique=True))
def test_colours_of_names_that_are_shown_together_are_far_apart(shown):
    names = [f"other {index}" for index in range(40)] + shown
    colors = class_colors(spread_colors(names, shown))
    least = {1: 0.25, 2: 0.25, 3: 0.25, 4: 0.23, 5: 0.2, 6: 0.17, 7: 0.17, 8: 0.16}.get(len(shown), 0.13)
    assert nearest_distance(colors[40:][:24]) > least
    assert tuple(colors[40]) == tuple(class_colors(shown[:1])[0]), "the first has its own"
    assert len(np.unique(colors, axis=0)) == len(names)
    np.testing.assert_array_equal(colors, class_colors(spread_colors(names, shown)))


def test_given_colours_stay_beside_those_that_are_chosen():
    names = Vocabulary(["cat", "dog", "cow"], {"dog": (0, 0, 255)})
    spread = spread_colors(names, ["Dog", "cat"])
    assert spread == names
    assert tuple(class_colors(spread)[1]) == (0, 0, 255)
    assert spread.colors.keys() == {"dog", "cat"}
    assert nearest_distance(class_colors(spread)[:2]) > 0.25


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
