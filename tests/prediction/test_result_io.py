"""What results can do: pictures of themselves, files, regions."""

import copy
import io
import json
import pickle

import numpy as np
import pytest
import torch
from PIL import Image

from err_seg import ArgumentError, ImageReadError, Segmentation
from err_seg.data.images import read_label as load_label_png
from err_seg.text.prompts import Vocabulary
from err_seg.visualization.overlay import overlay

VOCABULARY = ["cat", "grass", "sky, heaven", "tree"]


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)


@pytest.fixture
def result(toy_model, image):
    return toy_model().predict(image, VOCABULARY)


def test_a_result_knows_its_image(toy_model, image, tmp_path):
    Image.fromarray(image).save(tmp_path / "image.png")
    given = [image, Image.fromarray(image), torch.from_numpy(image), tmp_path / "image.png"]
    for result in toy_model().predict(given, VOCABULARY):
        assert np.array_equal(result.image, image)
        assert np.array_equal(pickle.loads(pickle.dumps(result)).image, image)
    assert result.resized((20, 30)).image.shape == (20, 30, 3)
    (tmp_path / "image.png").unlink()
    with pytest.raises(ValueError, match=r"image\.png: no such file"):
        _ = result.image


def test_an_image_in_memory_moves_with_its_result(toy_model, image, tmp_path):
    """Results that were moved to the CPU kept the images that they were given on the GPU."""
    Image.fromarray(image).save(tmp_path / "image.png")
    given = (image, torch.from_numpy(image), Image.fromarray(image))
    for results in (toy_model().predict(given, VOCABULARY), [toy_model().predict(image, VOCABULARY)]):
        for result in results:
            assert result.to("meta").source().is_meta
            assert np.array_equal(result.cpu().image, image)
    assert not toy_model().predict(tmp_path / "image.png", VOCABULARY).to("meta").source().is_meta


def test_a_file_that_has_changed_is_not_drawn(toy_model, image, tmp_path):
    Image.fromarray(image).save(tmp_path / "image.png")
    result, fine = (toy_model().predict(tmp_path / "image.png", VOCABULARY, refine=refine) for refine in (False, True))
    assert result._repr_jpeg_() is not None
    Image.fromarray(255 - image).save(tmp_path / "image.png")
    for same in (result, result.cpu(), result.resized((30, 30)), pickle.loads(pickle.dumps(result))):
        with pytest.raises(ImageReadError, match=r"image\.png: the file has changed"):
            same.plot()
        assert same._repr_jpeg_() is None, "a notebook shows a line of text"
    assert result.plot(image, legend=False).size == (480, 320)
    (tmp_path / "image.png").unlink()
    for same in (fine, fine.cpu(), pickle.loads(pickle.dumps(fine)), copy.deepcopy(fine)):
        assert np.array_equal(same.image, image), "a refined result holds on to its image"
    assert fine.resized((20, 30)).image.shape == (20, 30, 3)


def test_one_without_says_so(result, image):
    alone = Segmentation(*(getattr(result, name) for name in ("probabilities", "kept", "vocabulary", "size")), None)
    with pytest.raises(ArgumentError, match=r"plot\(image\)"):
        alone.plot()
    assert alone.plot(image).size == result.plot().size
    assert alone._repr_jpeg_() is None


def test_plot_of_a_large_image_is_its_overlay(toy_model):
    image = np.random.default_rng(0).integers(0, 256, (500, 300, 3), dtype=np.uint8)
    result = toy_model().predict(image, VOCABULARY)
    expected = overlay(image, result.labels.numpy(), VOCABULARY, names=True)
    assert np.array_equal(np.asarray(result.plot()), np.asarray(expected))
    assert result.plot(legend=False).size == (300, 500)


def test_a_vocabulary_s_own_colours_are_drawn(toy_model, image, tmp_path):
    (tmp_path / "words.json").write_text('[{"name": "cat", "color": [1, 2, 3]}, {"name": "Dog", "color": [4, 5, 6]}]')
    result = toy_model().predict(image, [tmp_path / "words.json", "cat", "wall"], num_kept=3)
    assert result.vocabulary == ("cat", "Dog", "wall")
    for same in (result, result.cpu(), result.resized((40, 60)), pickle.loads(pickle.dumps(result))):
        same.save(tmp_path / "labels.png", "labels")
        assert Image.open(tmp_path / "labels.png").getpalette()[:6] == [1, 2, 3, 4, 5, 6]
    expected = overlay(
        image, result.labels.numpy(), Vocabulary(result.vocabulary, {"cat": (1, 2, 3), "dog": (4, 5, 6)})
    )
    found = overlay(image, result.labels.numpy(), result.vocabulary)
    assert np.array_equal(np.asarray(found), np.asarray(expected))
    plain = overlay(image, result.labels.numpy(), ["cat", "Dog", "wall"])
    assert not np.array_equal(np.asarray(found), np.asarray(plain))


def test_plot_of_a_small_image_is_enlarged(result):
    assert result.plot(legend=False).size == (8 * 60, 8 * 40)


def test_pictures_do_not_make_a_result_grow(result):
    before = set(vars(result))
    shown = Image.open(io.BytesIO(result._repr_jpeg_()))
    assert shown.width >= 480
    result.plot()
    assert set(vars(result)) == before


def test_a_notebook_shows_a_moderate_size(toy_model):
    image = np.zeros((300, 2000, 3), dtype=np.uint8)
    shown = Image.open(io.BytesIO(toy_model().predict(image, VOCABULARY)._repr_jpeg_()))
    assert shown.width == 960


def test_show_opens_the_plot(result, monkeypatch):
    shown = []
    monkeypatch.setattr(Image.Image, "show", lambda self: shown.append(self.size))
    result.show(legend=False)
    assert shown == [(480, 320)]


def test_saved_as_the_ending_says(result, tmp_path):
    for name in ("a.png", "a.JPG", "a.json", "a.geojson"):
        result.save(tmp_path / name)
    result.save(tmp_path / "labels.png", "labels")
    assert np.array_equal(np.asarray(Image.open(tmp_path / "a.png")), np.asarray(result.plot()))
    photograph = Image.open(tmp_path / "a.JPG")
    assert photograph.format == "JPEG"
    assert np.abs(np.asarray(photograph).astype(float) - np.asarray(result.plot())).mean() < 4
    result.save(tmp_path / "labels.jpg", "labels")
    assert np.array_equal(load_label_png(tmp_path / "labels.jpg"), result.labels.numpy()), "never with loss"
    assert json.loads((tmp_path / "a.json").read_text()) == result.to_coco()
    assert json.loads((tmp_path / "a.geojson").read_text()) == result.polygons()
    assert np.array_equal(load_label_png(tmp_path / "labels.png"), result.labels.numpy())
    for arguments in (("a.txt",), ("a.png", "mask"), ("noending",)):
        with pytest.raises(ArgumentError, match=r"overlay, labels, coco, polygons"):
            result.save(tmp_path / arguments[0], *arguments[1:])
    assert not (tmp_path / "a.txt").exists()


def test_regions_have_the_result_s_areas_and_scores(result):
    labels, scores = result.labels.numpy(), result.scores.numpy()
    for label in np.unique(labels):
        parts = [region for region in result.regions() if region.label == label]
        assert {region.name for region in parts} == {VOCABULARY[label]}
        assert sum(region.area for region in parts) == (labels == label).sum()
        mean = sum(region.area * region.score for region in parts) / (labels == label).sum()
        assert mean == pytest.approx(scores[labels == label].mean(), rel=1e-4)
    largest = result.regions()[0].area
    assert len(result.regions(min_area=largest)) == len(result.polygons(min_area=largest)["features"]) == 1
    coco = result.to_coco("image.jpg", min_area=largest)
    assert coco["images"][0]["file_name"] == "image.jpg"
    assert [annotation["area"] for annotation in coco["annotations"]] == [largest]


@pytest.mark.parametrize(
    ("call", "complaint"),
    [
        (lambda result: result.regions("5"), "min_area must be a finite number of at least 0, not '5'"),
        (lambda result: result.to_coco(min_area=None), "min_area must be .* not None"),
        (lambda result: result.polygons(float("nan")), "simplify must be .* not nan"),
        (lambda result: result.polygons(-1), "simplify must be .* not -1"),
        (lambda result: result.save(None), "path must be a text that is not blank, not None"),
        (lambda result: result.save(io.BytesIO()), "path must be"),
    ],
)
def test_mistakes(result, call, complaint):
    with pytest.raises(ArgumentError, match=complaint):
        call(result)


def test_it_introduces_itself(result):
    assert repr(result) == "Segmentation(40×60 pixels, 4 of 4 classes: cat, grass, sky, heaven, tree)"
