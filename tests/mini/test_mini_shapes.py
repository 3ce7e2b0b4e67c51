"""The miniature world's brush: shapes, textures, and labels that follow them."""

import numpy as np
import pytest

from err_seg.mini.canvas import Canvas
from err_seg.mini.shapes import MORE_SHAPES, OBJECT_COLOURS, PATTERNS, SHAPES, TEXTURES, Look

OUTLINES, MARKS = SHAPES | MORE_SHAPES, TEXTURES | PATTERNS


def test_the_label_follows_the_edge():
    canvas = Canvas(64, 64, np.random.default_rng(0), "easy")
    canvas.image[:], canvas.label[:] = 255, -1
    canvas.paint_object(Look("circle", OBJECT_COLOURS["black"]), 7, (32, 32), 20)
    dark = canvas.image.mean(2) < 127
    assert np.array_equal(dark, canvas.label == 7)
    shades = np.unique(canvas.image[..., 0].round())
    assert len(shades) > 10  # the edge is anti-aliased
    assert (canvas.label == 7).sum() == pytest.approx(np.pi * (0.94 * 20) ** 2, rel=0.02)


def test_an_object_beyond_the_edge_is_cut_off():
    canvas = Canvas(64, 64, np.random.default_rng(0), "easy")
    canvas.paint_object(Look("square", OBJECT_COLOURS["red"]), 1, (0, 60), 20)
    canvas.paint_object(Look("square", OBJECT_COLOURS["red"]), 2, (-50, -50), 20)
    assert set(np.unique(canvas.label)) == {0, 1}
    assert not canvas.label[:, 30:].any()


@pytest.mark.parametrize(("first", "second"), [(a, b) for a in OUTLINES for b in OUTLINES if a < b])
def test_shapes_differ_even_when_small_and_tilted(first, second):
    y, x = np.mgrid[-1:1:24j, -1:1:24j]

    def inside(shape, degrees):
        c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
        return OUTLINES[shape](x * c + y * s, y * c - x * s) <= 0

    for tilt in (-12, 0, 12):
        a, b = inside(first, 0), inside(second, tilt)
        assert (a & b).sum() / (a | b).sum() < 0.85


@pytest.mark.parametrize("texture", MARKS)
def test_textures_repeat_and_show_both_tones(texture):
    y, x = np.arange(120.0)[:, None] + 0.5, np.arange(120.0)[None] + 0.5
    pattern = MARKS[texture](x, y, 20.0)
    assert pattern.shape == (120, 120)
    assert (pattern.min(), pattern.max()) == (0, 1)
    assert 0.15 < pattern.mean() < 0.6
    assert np.allclose(MARKS[texture](x + 520, y + 480, 20.0), pattern, atol=1e-6)
