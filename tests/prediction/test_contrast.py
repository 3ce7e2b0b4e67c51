"""Contrast: names that compete with a few classes, on the trained network of the package."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

import err_seg
from err_seg import VocabularyError
from err_seg.commands import predict
from err_seg.data import load_vocabulary
from err_seg.data.images import read_label
from err_seg.mini.scenes import MiniScenes
from err_seg.mini.vocabulary import VOCABULARY
from err_seg.prediction.class_maps import UNLABELED
from err_seg.prediction.contrast import FEW_NAMES, competing, distinct
from err_seg.text.vocabularies import common_vocabulary, synonym_key
from err_seg.utils.images import save_image

SCENE = MiniScenes("test", length=1)[0]
LABELS, PIXELS = np.unique(SCENE.label, return_counts=True)
LARGEST = int(LABELS[PIXELS.argmax()])
PRESENT = VOCABULARY[LARGEST]
ABSENT = next(name for label, name in enumerate(VOCABULARY) if label not in LABELS)


@pytest.fixture(scope="module")
def mini():
    return err_seg.load("mini")


@pytest.fixture
def users_default(monkeypatch):
    """Contrast as people get it, which other tests leave out."""
    monkeypatch.setattr(err_seg.ERRSeg, "few_names", FEW_NAMES)


def share_right(result, name):
    truth = np.where(SCENE.label == VOCABULARY.index(name), 0, UNLABELED)
    return (result.labels.numpy() == truth).mean()


def test_a_name_asked_alone_is_found_where_it_is_and_only_there(mini):
    alone = mini.predict(SCENE.image, [PRESENT], contrast="none")
    assert (alone.labels == 0).all()
    result = mini.predict(SCENE.image, [PRESENT], contrast="common")
    assert result.labels.dtype == torch.int16
    assert share_right(result, PRESENT) > 0.95
    assert result.vocabulary == (PRESENT,)
    assert set(result.names) == set(VOCABULARY)
    assert [row["name"] for row in result.summary()] == [PRESENT]


def test_an_absent_name_gets_no_pixel(mini):
    result = mini.predict(SCENE.image, [ABSENT], contrast="common")
    assert (result.labels == UNLABELED).all()
    assert result.summary() == result.regions() == []
    assert "none of these" not in repr(result)


def test_contrast_competes_as_the_same_names_in_the_vocabulary_would(mini):
    others = [name for name in VOCABULARY if name != PRESENT]
    result = mini.predict(SCENE.image, [PRESENT], contrast=others)
    whole = mini.predict(SCENE.image, [PRESENT, *others])
    torch.testing.assert_close(result.probabilities, whole.probabilities, rtol=0, atol=1e-5)
    assert torch.equal(result.kept, whole.kept)
    assert torch.equal(result.labels == 0, whole.labels == 0)
    assert result.contrast.names == tuple(others)


def test_names_that_mean_the_same_do_not_compete(mini):
    swapped = " ".join(reversed(PRESENT.split()))
    others = [name for name in VOCABULARY if name != PRESENT]
    result = mini.predict(SCENE.image, [PRESENT], contrast=[swapped, PRESENT.upper(), *others])
    assert dict(result.contrast.left_out) == {swapped: PRESENT, PRESENT.upper(): PRESENT}
    expected = mini.predict(SCENE.image, [PRESENT], contrast=others)
    torch.testing.assert_close(result.probabilities, expected.probabilities, rtol=0, atol=1e-5)
    assert str(result.contrast) == f"59 contrast names, without {swapped} (= {PRESENT})"


def test_near_synonyms_are_merged_with_the_first_that_stays():
    text = torch.nn.functional.normalize(torch.tensor([[1.0, 0.0], [0.95, 0.3], [0.8, 0.6], [0.0, 1.0]]), dim=1)
    # the second is near the first and the third, but dropped, so that the third stays
    assert distinct(text) == [0, 2, 3]


def test_all_of_a_contrast_may_be_left_out():
    text = torch.eye(2)
    contrast, rows = competing(["Sofa"], text[:1], ["sofa", "wall"], text)
    assert (contrast.names, rows.shape, dict(contrast.left_out)) == ((), (0, 2), {"Sofa": "sofa"})


def test_the_common_names_are_those_of_all_tables_once():
    names = common_vocabulary()
    keys = [synonym_key(name) for name in names]
    assert len(names) == len(set(keys)) == 1166
    for table in err_seg.vocabularies():
        assert {synonym_key(name) for name in load_vocabulary(table)} <= set(keys)


def test_few_names_compete_with_the_common_ones_by_default(mini, users_default):
    few, many = VOCABULARY[: FEW_NAMES - 1], VOCABULARY[:FEW_NAMES]
    assert mini.predict(SCENE.image, few).contrast.names == VOCABULARY[FEW_NAMES - 1 :]
    assert mini.predict(SCENE.image, many).contrast.names == ()
    assert mini.predict(SCENE.image, few, contrast="none").contrast.names == ()


def test_without_a_k_nothing_competes_unless_asked_for(toy_model, images, users_default):
    model = toy_model("MODEL.CRM.ENABLED", False)
    assert model.predict(images[0], ["cat", "dog"]).contrast.names == ()


def test_auto_labels_with_the_common_names(mini):
    result = mini.predict(SCENE.image, "auto")
    assert result.vocabulary == VOCABULARY
    assert torch.equal(result.labels, mini.predict(SCENE.image, VOCABULARY).labels)


def test_windows_frames_and_sizes_keep_the_contrast(mini):
    for options in ({"tile": 100}, {"refine": True}, {"size": (40, 50)}):
        result = mini.predict(SCENE.image, [ABSENT], contrast="common", **options)
        assert (result.labels == UNLABELED).all()
    frames = mini.predict_stream([SCENE.image] * 3, [PRESENT], contrast="common")
    for result in err_seg.smoothed(frames, 1):
        assert share_right(result, PRESENT) > 0.95


def test_dense_maps_are_of_the_vocabulary_alone(mini):
    result = mini.predict(SCENE.image, [PRESENT, ABSENT], contrast="common")
    dense = result.dense()
    assert dense.shape == (2, *SCENE.label.shape)
    assert torch.equal(dense[0], result.maps[result.kept.tolist().index(0)])


def test_saved_labels_and_plots_show_none_of_these(mini, tmp_path):
    result = mini.predict(SCENE.image, [PRESENT], contrast="common")
    result.save(tmp_path / "labels.png", "labels")
    stored = read_label(tmp_path / "labels.png")
    assert np.array_equal(stored == 255, result.labels.numpy() == UNLABELED)
    larger = result.resized((600, 600))
    unpainted = (np.asarray(larger.plot(legend=False, names=False)) == larger.image).all(axis=2)
    assert unpainted[larger.labels.numpy() == UNLABELED].mean() > 0.9  # but for contours
    assert unpainted[larger.labels.numpy() == 0].mean() < 0.1


def test_an_unusable_contrast_is_refused_before_an_image_is_read(mini):
    with pytest.raises(VocabularyError, match="does not support the word 'zebra'"):
        mini.predict("no such file.png", [PRESENT], contrast=["zebra"])
    with pytest.raises(VocabularyError, match="unknown vocabulary 'commn'"):
        mini.predict("no such file.png", [PRESENT], contrast="commn")


def command(tmp_path, *options):
    save_image(Image.fromarray(SCENE.image), tmp_path / "scene.png")
    output = tmp_path / "results"
    status = predict.main(
        [str(tmp_path / "scene.png"), "--model", "mini", "--output", str(output), "--format", "json", *options]
    )
    return status, json.loads((output / "scene.json").read_text(encoding="utf-8"))


def test_the_command_says_what_competed(tmp_path, users_default, capsys):
    status, facts = command(tmp_path, "--classes", f"{PRESENT}, {ABSENT}")
    assert status == 0
    assert "58 contrast names compete" in capsys.readouterr().out
    assert [row["name"] for row in facts["classes"]] == [PRESENT]
    assert facts["contrast"] == {"names": 58, "left_out": {PRESENT: PRESENT, ABSENT: ABSENT}}


def test_results_with_another_contrast_are_not_continued(tmp_path, capsys):
    classes = ("--classes", PRESENT)
    assert command(tmp_path, *classes, "--contrast", f"{ABSENT}")[0] == 0
    assert command(tmp_path, *classes, "--contrast", "none")[0] == 3
    assert "other settings (contrast is null now" in capsys.readouterr().err


def test_the_command_finds_names_by_itself(tmp_path, capsys):
    status, facts = command(tmp_path, "--classes", "auto")
    assert status == 0
    assert facts["classes"][0]["name"] == PRESENT
