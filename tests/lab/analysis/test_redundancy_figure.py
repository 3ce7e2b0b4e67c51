"""Attention with all classes kept and with K: what is compared, what is drawn, what is refused."""

import numpy as np
import pytest
import torch
from PIL import Image

import err_seg
from err_seg.commands.figures import main
from err_seg.lab.analysis.attention_comparison import compare_attention, find_class, redundancy_figure
from err_seg.mini.scenes import MiniScenes
from err_seg.mini.vocabulary import VOCABULARY as MINI_WORDS
from err_seg.prediction.attention import record_attention
from tests.helpers.toy import VOCABULARY

WORDS = tuple(name for name in MINI_WORDS if "triangle" in name or "star" in name)


@pytest.fixture
def model(toy_model):
    return toy_model().eval()


@pytest.fixture(scope="module")
def mini():
    return err_seg.load("mini", device="cpu")


@pytest.fixture(scope="module")
def scene():
    return MiniScenes("test", length=5, seed=0)[4]


def test_the_first_layer_does_not_depend_on_the_other_classes(mini, scene):
    """SFM 1 comes before any CFM; from SFM 2 on, redundant classes have a say."""
    c = compare_attention(mini, scene.image, MINI_WORDS, class_name="green triangle", point=(90, 100), num_kept=12)
    assert (len(c.few.result.kept), len(c.all.result.kept)) == (12, 60)
    maps = [[run.attention.to_pixels(i, run.place, c.relative_point) for run in (c.few, c.all)] for i in (0, 1)]
    torch.testing.assert_close(*maps[0])
    assert (maps[1][0] - maps[1][1]).abs().max() > 1e-3


def test_runs_are_what_record_attention_gives(model, images):
    c = compare_attention(model, images[0], VOCABULARY, num_kept=3)
    for run, k in ((c.few, 3), (c.all, 7)):
        expected = record_attention(model, images[0], VOCABULARY, num_kept=k)
        got = run.attention.to_classes(1, (0.3, 0.6))
        torch.testing.assert_close(got, expected.to_classes(1, (0.3, 0.6)))
        assert int(run.result.kept[run.place]) == c.index


def test_shares_of_the_classes(model, images):
    labels = np.full(images[0].shape[:2], 255)
    labels[:10], labels[10:20] = 2, 5
    index = int(model.predict(images[:1], VOCABULARY)[0].labels[24, 40])
    c = compare_attention(model, images[0], VOCABULARY, labels=labels)
    assert c.point == (40, 24)
    assert c.index == index
    assert set(c.present.nonzero()[:, 0].tolist()) == {2, 5, index}
    weights = c.all.attention.to_classes(0, c.relative_point)[index]
    itself, others, redundant = c.class_shares(c.all, 0).tolist()
    assert itself == pytest.approx(float(weights[index]), abs=1e-6)
    assert others == pytest.approx(float(weights[[i for i in {2, 5} if i != index]].sum()), abs=1e-6)
    assert itself + others + redundant == pytest.approx(1, abs=1e-5)


def test_share_on_the_class(model, images):
    """A region that is one quarter of SSR's 2×2 grid has that place's weight, whatever the image's size."""
    labels = np.zeros(images[2].shape[:2], dtype=int)
    labels[:35, 35:] = 4
    c = compare_attention(model, images[2], VOCABULARY, class_name="dog", labels=labels, num_kept=6)
    weights = c.few.attention.to_pixels(1, c.few.place, c.relative_point)
    assert weights.shape == (2, 2)
    assert c.share_on_class(c.few, 1) == pytest.approx(float(weights[0, 1]), abs=1e-5)


def test_classes_are_found_by_either_name():
    assert find_class(VOCABULARY, "Sofa") == find_class(VOCABULARY, "sofa, couch") == 5
    with pytest.raises(ValueError, match="'gras' is not one of the 7 classes; did you mean 'grass'"):
        find_class(VOCABULARY, "gras")
    with pytest.raises(ValueError, match="they are cat, grass, sky"):
        find_class(VOCABULARY, "xylophone")


def test_the_figure_is_drawn(mini, scene):
    labels = np.where(scene.label == MINI_WORDS.index("green triangle"), WORDS.index("green triangle"), 255)
    options = {"class_name": "green triangle", "num_kept": 6}
    predicted = compare_attention(mini, scene.image, WORDS, point=(90, 100), **options)
    known = compare_attention(mini, scene.image, WORDS, point=(20, 20), labels=labels, **options)
    assert (predicted.has_truth, known.has_truth) == (False, True)
    assert known.present.nonzero().tolist() == [[known.index]]
    assert set(predicted.present.nonzero()[:, 0].tolist()) <= set(predicted.few.result.kept.tolist())
    figures = [redundancy_figure(comparison) for comparison in (predicted, known)]
    assert min(figures[0].size) > 600
    assert figures[0].size == figures[1].size
    assert not np.array_equal(*figures)


@pytest.mark.parametrize(
    ("switches", "options", "message"),
    [
        (("MODEL.ESCF.ENABLED", False), {}, "no ESCF"),
        (("MODEL.ESCF.SFM", False), {}, "no SFM"),
        (("MODEL.ESCF.CFM", False), {}, "no CFM"),
        ((), {"class_name": "house"}, "'house' is not one of the 7 classes"),
        ((), {"point": (80, 0)}, r"point \(80, 0\) is outside the image: x is 0..79, y is 0..47"),
        ((), {"point": (0, -1)}, "is outside the image"),
        ((), {"num_kept": 7}, "all 7 classes are kept anyway"),
        ((), {"labels": np.zeros((3, 3), dtype=int)}, "must be equal"),
    ],
)
def test_what_cannot_be_compared(toy_model, images, switches, options, message):
    with pytest.raises(ValueError, match=message):
        compare_attention(toy_model(*switches).eval(), images[0], VOCABULARY, **options)


def test_a_class_that_is_not_kept(model, images):
    kept = model.predict(images[:1], VOCABULARY, num_kept=2)[0].kept.tolist()
    dropped = next(i for i in range(len(VOCABULARY)) if i not in kept)
    with pytest.raises(ValueError, match="is not among the 2 classes that CRM keeps"):
        compare_attention(model, images[0], VOCABULARY, class_name=VOCABULARY[dropped], num_kept=2)


@pytest.fixture
def photo(scene, tmp_path):
    Image.fromarray(scene.image).save(tmp_path / "scene.png")
    (tmp_path / "words.txt").write_text("\n".join(WORDS))
    words = ["--classes-file", str(tmp_path / "words.txt"), "--num-kept", "6"]
    return ["attention", str(tmp_path / "scene.png"), *words, "--model", "mini"]


@pytest.mark.parametrize("palette", [False, True])
def test_command(photo, palette, tmp_path, capsys):
    output = tmp_path / "out" / "figure.png"
    options = ["--class", "green triangle", "--point", "90", "100", "--output", str(output)]
    assert main([*photo, *options, *["--palette"] * palette]) == 0
    assert str(output) in capsys.readouterr().out
    assert Image.open(output).mode == ("P" if palette else "RGB")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--class", "green triangel"], "did you mean 'green triangle'?"),
        (["--point", "500", "3"], "the point (500, 3) is outside the image"),
        (["--opts", "MODEL.ESCF.ENABLED", "False"], "error: "),
        (["--labels", "nowhere.png"], "nowhere.png: no such file"),
    ],
)
def test_command_errors(photo, options, message, tmp_path, capsys):
    assert main([*photo, "--output", str(tmp_path / "figure.png"), *options]) == 1
    errors = capsys.readouterr().err
    assert errors.startswith("error: ")
    assert message in errors
    assert not (tmp_path / "figure.png").exists()


def test_an_unreadable_image(photo, tmp_path, capsys):
    (tmp_path / "scene.png").write_bytes(b"not an image")
    assert main(photo) == 1
    assert "scene.png: is not an image in any format" in capsys.readouterr().err


def test_few_names_are_compared_without_contrast(toy_model, images, monkeypatch):
    monkeypatch.setattr("err_seg.ERRSeg.few_names", 100)
    c = compare_attention(toy_model(), images[0], VOCABULARY, num_kept=3)
    assert (len(c.few.result.kept), len(c.all.result.kept)) == (3, len(VOCABULARY))
    assert c.all.result.names == VOCABULARY
