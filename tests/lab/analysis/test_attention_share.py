"""The redundant classes' share of CFM's attention: the statements hold, and the measurement is the network's own."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from err_seg.commands.figures import main
from err_seg.lab.analysis.attention_share import (
    AttentionShare,
    draw_attention_share,
    layer_quantities,
    measure_attention_share,
    redundant_share,
    save_attention_share,
    share_bounds,
    share_table,
)
from err_seg.prediction.attention import AttentionLayer
from err_seg.visualization.plots import save_figure
from tests.helpers.toy import TOY

CLASSES = ("cat", "grass", "sky", "tree", "dog", "sofa, couch", "traffic light", "bus", "sea")
ATTENTION = st.tuples(st.integers(1, 6), st.integers(0, 40), st.floats(0, 30), st.integers(0, 2**31))


def random_logits(num_present, num_redundant, scale, seed):
    """Return logits (5, T) of any order of size, and a mask of classes in random places."""
    generator = torch.Generator().manual_seed(seed)
    total = num_present + num_redundant
    logits = scale * torch.randn(5, total, generator=generator, dtype=torch.float64)
    present = torch.zeros(total, dtype=torch.bool)
    present[torch.randperm(total, generator=generator)[:num_present]] = True
    return logits, present


@settings(max_examples=100, deadline=None)
@given(ATTENTION)
def test_share_lies_within_the_bounds(example):
    num_present, num_redundant, _, _ = example
    logits, present = random_logits(*example)
    lower, upper = share_bounds(num_present, num_redundant, logits.amax(dim=1) - logits.amin(dim=1))
    share = redundant_share(logits, present)
    assert (lower <= share + 1e-12).all()
    assert (share <= upper + 1e-12).all()


@settings(max_examples=50, deadline=None)
@given(ATTENTION)
def test_share_is_uniform_on_average_over_all_rotations(example):
    """Over all rotations of any logits every class has every place once, so the mean is exactly R / T."""
    num_present, num_redundant, _, _ = example
    logits, present = random_logits(*example)
    rotated = torch.stack([logits.roll(shift, dims=1) for shift in range(len(present))])
    share = redundant_share(rotated, present).mean(dim=0)
    expected = torch.full((5,), num_redundant / (num_present + num_redundant), dtype=torch.float64)
    torch.testing.assert_close(share, expected)


@pytest.mark.parametrize("spread", [0.0, 0.7, 5.0])
def test_bounds_are_attained(spread):
    present = torch.tensor([True, True, False, False, False])
    for sign, bound in zip((1, -1), share_bounds(2, 3, torch.tensor(spread)), strict=True):
        logits = torch.where(present, sign * spread / 2, -sign * spread / 2)
        assert float(redundant_share(logits, present)) == pytest.approx(float(bound), abs=1e-6)
    assert float(share_bounds(2, 3, torch.tensor(0.0))[0]) == pytest.approx(3 / 5)


def test_share_tends_to_one_with_the_vocabulary():
    lower = [float(share_bounds(4, redundant, torch.tensor(3.0))[0]) for redundant in (10, 100, 1_000, 100_000)]
    assert lower == sorted(lower)
    assert lower[-1] > 0.999


def test_figures_of_a_layer_are_those_of_a_loop():
    generator = torch.Generator().manual_seed(3)
    layer = AttentionLayer(
        2, (2, 3), torch.randn(6, 5, 8, generator=generator), torch.randn(6, 5, 8, generator=generator)
    )
    present = torch.tensor([False, True, False, True, False])
    shares, own, spreads = [], [], []
    for place in range(6):
        for head in range(2):
            part = slice(4 * head, 4 * head + 4)
            for query in (1, 3):
                logits = layer.keys[place, :, part] @ layer.queries[place, query, part] / 2
                weights = logits.softmax(dim=0)
                shares.append(float(weights[[0, 2, 4]].sum()))
                own.append(float(weights[query]))
                spreads.append(float(logits.max() - logits.min()))
    redundant, itself, spread, lower, upper = layer_quantities(layer, present)
    assert (redundant, itself, spread) == pytest.approx((np.mean(shares), np.mean(own), np.mean(spreads)), abs=1e-6)
    assert lower < redundant < upper


@pytest.fixture
def own_pairs(write_pairs, images):
    """Return a function from further declarations to a data set of three images with classes 0..4.

    The last label map is ignored throughout.
    """
    rng = np.random.default_rng(1)
    labels = [rng.choice([index, 2 * index + 1, 4, 255], images[index].shape[:2]) for index in range(2)]
    labels.append(np.full(images[2].shape[:2], 255))
    return lambda **values: write_pairs([label.astype(np.uint8) for label in labels], CLASSES, images, **values)


def test_measurement_on_a_data_set(toy_model, own_pairs, tmp_path):
    model = toy_model().eval()
    pairs = own_pairs()
    few, everything = measure_attention_share(model, pairs, [4, 99, 9])
    assert (few.num_kept, everything.num_kept) == (4, 9)
    present = [len(set(np.unique(pairs[i].label)) - {255}) for i in range(2)]
    assert everything.present.tolist() == present
    assert everything.left_out == 1
    assert everything.uniform == pytest.approx(1 - np.mean(present) / 9)
    assert everything.quantities.shape == (2, 2, 5)
    for result in (few, everything):
        assert (result.mean("lower") <= result.mean("redundant")).all()
        assert (result.mean("redundant") <= result.mean("upper")).all()
        assert (result.mean("redundant") + result.mean("itself") < 1).all()
    assert not any(module._forward_hooks for module in model.modules())

    table = share_table([few, everything])
    assert len(table.splitlines()) == 2 + 4
    save_attention_share([few, everything], tmp_path / "share.json")
    entry = json.loads((tmp_path / "share.json").read_text())[1]
    assert entry["layers"][1]["redundant"]["mean"] == pytest.approx(everything.mean("redundant")[1])
    assert (entry["pictures"], entry["left_out"]) == (2, 1)


def test_uniform_attention_gives_the_uniform_share(toy_model, own_pairs):
    """With keys that do not depend on the class, every class gets the same."""
    model = toy_model().eval()
    for layer in model.head.escf.layers:
        torch.nn.init.zeros_(layer.cfm.attention.k.weight)
    pairs = own_pairs()
    (result,) = measure_attention_share(model, pairs, [9])
    assert result.mean("redundant") == pytest.approx([result.uniform] * 2, abs=1e-5)
    assert result.preference == pytest.approx([1, 1], abs=1e-4)
    assert result.mean("spread") == pytest.approx([0, 0], abs=1e-4)


@pytest.mark.parametrize(
    ("switches", "values", "num_kept", "message"),
    [
        (("MODEL.ESCF.ENABLED", False), {}, [4], "no ESCF"),
        (("MODEL.ESCF.CFM", False), {}, [4], r"no CFM \(MODEL.ESCF.CFM is False\)"),
        ((), {"variant": "background", "num_foreground": 5}, [4], "its background stands for many classes"),
        ((), {}, [0], "at least 1"),
    ],
)
def test_what_cannot_be_measured(toy_model, own_pairs, switches, values, num_kept, message):
    pairs = own_pairs(**values)
    with pytest.raises(ValueError, match=message):
        measure_attention_share(toy_model(*switches).eval(), pairs, num_kept)


def share(num_kept, layers):
    figures = np.zeros((3, len(layers), 5))
    figures[:, :, 0] = layers
    return AttentionShare("toy", num_kept, np.full(3, 3), figures)


def test_preference_compares_with_uniform_attention():
    result = share(12, [0.75, 0.5])
    assert result.uniform == 0.75
    assert result.preference == pytest.approx([1, 3])


def test_image_of_the_shares(tmp_path):
    figure = draw_attention_share([share(24, [0.6, 0.3]), share(6, [0.4, 0.2])])
    uniform, first, second = figure.axes[0].lines
    assert list(uniform.get_ydata()) == [0.5, 0.875]
    assert list(first.get_ydata()) == pytest.approx([0.4, 0.6])
    assert list(second.get_ydata()) == pytest.approx([0.2, 0.3])
    save_figure(figure, tmp_path / "share.png")
    assert Image.open(tmp_path / "share.png").format == "PNG"


def test_command_on_drawn_scenes(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    config = tmp_path / "toy.yaml"
    config.write_text("MODEL: {WEIGHTS: ''}\n")
    arguments = ["attention-share", "--mini", "2", "--num-kept", "4", "60", "--output", str(tmp_path / "out")]
    assert main([*arguments, "--config-file", str(config), "--opts", *map(str, TOY)]) == 0
    printed = capsys.readouterr().out
    assert "| mini_world_test_2 | 60 |   2 |" in printed
    assert "mean nothing: the network has random weights" in printed
    assert {"attention_share.json", "attention_share.png"} <= {file.name for file in (tmp_path / "out").iterdir()}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "name some with --datasets, or draw scenes with --mini"),
        (["--datasets", "ade20k"], "unknown data set 'ade20k'"),
        (["--datasets", "ade20k_150_val", "--root", "nowhere"], "no folder of images"),
    ],
)
def test_command_errors(arguments, message, tmp_path, capsys):
    assert main(["attention-share", "--model", "mini", "--output", str(tmp_path / "out"), *arguments]) == 1
    errors = capsys.readouterr().err
    assert errors.startswith("error: ")
    assert message in errors
    assert errors.count("\n") == 1
