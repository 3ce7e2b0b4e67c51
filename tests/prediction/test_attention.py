"""Recorded attention is what the network computes, and recording leaves the network as it was."""

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from torch.nn import functional as F

from err_seg.prediction.attention import _draw_shares, attention_figure, cell, record_attention
from err_seg.prediction.kept_classes import _draw_scores, bar_rows, kept_figure
from tests.helpers.toy import VOCABULARY


@pytest.fixture
def model(toy_model):
    return toy_model().eval()


def test_weights_give_the_networks_own_result(model, images):
    """Attention recomputed from recorded queries and keys, applied to the values, is what reaches ``proj``."""
    seen = {}
    module = model.head.escf.layers[1].cfm.attention
    handles = [
        module.v.register_forward_hook(lambda _, __, output: seen.update(v=output[0])),
        module.proj.register_forward_pre_hook(lambda _, inputs: seen.update(attended=inputs[0])),
    ]
    attention = record_attention(model, images[0], VOCABULARY)
    for handle in handles:
        handle.remove()
    place, heads = 3, module.num_heads
    layer = attention.category[1]
    q, k = (t[place].unflatten(-1, (heads, -1)).transpose(0, 1) for t in (layer.queries, layer.keys))
    v = seen["v"][place].unflatten(-1, (heads, -1)).transpose(0, 1)
    attended = F.scaled_dot_product_attention(q, k, v).transpose(0, 1).flatten(1)
    torch.testing.assert_close(attended, seen["attended"][place])
    weights = layer.weights(place)
    assert weights.shape == (4, 4)
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(4))
    mean = torch.softmax(q @ k.transpose(1, 2) / q.shape[-1] ** 0.5, dim=-1).mean(dim=0)
    torch.testing.assert_close(weights, mean)


def test_shapes_and_sums(model, images):
    attention = record_attention(model, images[0], VOCABULARY, num_kept=3)
    assert len(attention.spatial) == len(attention.category) == 2
    spatial = attention.to_pixels(0, 2, (0.9, 0.1))
    assert spatial.shape == (2, 2)  # the 4×4 grid, halved by SSR
    assert spatial.sum() == pytest.approx(1, abs=1e-5)
    assert attention.to_classes(1, (0.9, 0.1)).shape == (3, 3)
    assert cell((0.0, 0.999), (4, 8)) == (3, 0)
    assert cell((1.0, 1.0), (4, 8)) == (3, 7)


def test_recording_leaves_nothing_behind(model, images):
    def hooks():
        return [[*m._forward_hooks, *m._forward_pre_hooks] for m in model.modules()]

    before, hooks_before = model.predict(images[:1], VOCABULARY)[0].probabilities, hooks()
    record_attention(model, images[0], VOCABULARY)
    assert hooks() == hooks_before
    assert torch.equal(model.predict(images[:1], VOCABULARY)[0].probabilities, before)


def test_network_without_escf(toy_model, images):
    with pytest.raises(ValueError, match="no ESCF"):
        record_attention(toy_model("MODEL.ESCF.ENABLED", False).eval(), images[0], VOCABULARY)


def test_figures_are_drawn(model, images):
    result = model.predict(images[1:2], VOCABULARY)[0]
    figure = kept_figure(images[1], result)
    assert len(np.unique(np.asarray(figure).reshape(-1, 3), axis=0)) > 100
    attention = record_attention(model, images[1], VOCABULARY)
    corner = attention_figure(images[1], result, attention, (0, 0))
    far = attention_figure(images[1], result, attention, (10_000, 10_000))
    assert corner.size == far.size
    assert not np.array_equal(corner, far)


def many_words(model, images, num_kept):
    names = [f"thing {i}" for i in range(60)]
    return model.predict(images[1:2], names, num_kept=num_kept)[0]


@pytest.mark.parametrize("num_kept", [1, 5, 12, 23, 24, 40, 59, 60])
def test_bars_show_both_sides_of_the_cut(model, images, num_kept):
    result = many_words(model, images, num_kept)
    rows, cut = bar_rows(result)
    kept, dropped = rows[:cut], rows[cut:]
    assert len(rows) == 24
    scores, mine = result.class_scores, set(result.kept.tolist())
    best = sorted(range(60), key=lambda i: (-scores[i], i))
    for shown, all_of_them in (
        (kept, [i for i in best if i in mine]),
        (dropped, [i for i in best if i not in mine]),
    ):
        named = [row for row in shown if isinstance(row, int)]
        assert named == [i for i in all_of_them if i in named], "highest score first"
        left_out = [int(row.split()[1]) for row in shown if isinstance(row, str)]
        assert len(named) + sum(left_out) == len(all_of_them)
    assert len(dropped) >= min(60 - num_kept, 8)
    above = min(num_kept, 3)
    assert kept[-above:] == [i for i in best if i in mine][-above:], "the last that were kept"
    if dropped:
        assert dropped[0] == next(i for i in best if i not in mine), "the first that was dropped"


def test_cut_is_drawn_and_named(model, images):
    def drawn(num_kept):
        axis = Figure().subplots()
        result = many_words(model, images, num_kept)
        _draw_scores(axis, result, *bar_rows(result))
        lines = [line.get_ydata()[0] for line in axis.lines]
        return axis.get_title(), lines, [text.get_text() for text in axis.texts if text.get_text() == "cut"]

    title, lines, names = drawn(40)
    assert title.startswith("40 of 60 classes kept (blue)\n20 dropped (grey), ")
    assert (lines, names) == ([15.5], ["cut"])
    assert drawn(60) == ("all 60 classes kept", [], [])


def test_others_do_not_set_the_scale(model, images):
    """However much attention the sum of the others has, the colours tell the classes shown apart."""
    result = many_words(model, images, 40)
    axis = Figure().subplots()
    shares = torch.full((40, 40), 0.9 / 39)
    shares.fill_diagonal_(0.1)
    _draw_shares(axis, shares, result, 0, "CFM 1")
    (image,) = axis.images
    assert image.get_array().shape == (9, 9)
    assert image.get_clim() == pytest.approx((0, 0.1))
    texts = [text.get_text() for text in axis.texts]
    assert texts[:10] == ["10", *["2"] * 8, "72"]
    assert axis.get_xticklabels()[-1].get_text() == "31 others"
    axis = Figure().subplots()
    _draw_shares(axis, shares[:3, :3], many_words(model, images, 3), 0, "CFM 1")
    assert len(axis.get_xticklabels()) == 3
