"""What predict takes, in every form, and what it refuses, always with an error that the package exports."""

import io
from inspect import signature

import numpy as np
import pytest
import torch
from PIL import Image

import err_seg
from err_seg import ArgumentError, ImageError, ImageReadError, Segmentation, VocabularyError
from tests.helpers.toy import VOCABULARY


@pytest.fixture
def model(toy_model):
    return toy_model()


def test_one_image_gives_one_result_and_several_a_list(model, images, tmp_path):
    file = tmp_path / "image.png"
    Image.fromarray(images[0]).save(file)
    expected = model.predict(images[0], VOCABULARY)
    assert isinstance(expected, Segmentation)
    for one in (file, str(file), Image.open(file), torch.from_numpy(images[0])):
        assert torch.equal(model.predict(one, VOCABULARY).probabilities, expected.probabilities)
    for several in (images, tuple(images), (p for p in images), iter(images), map(np.asarray, images)):
        results = model.predict(several, VOCABULARY, batch_size=2)
        assert [result.size for result in results] == [image.shape[:2] for image in images]
    for one in ([images[0]], (images[0],), iter([images[0]])):
        (result,) = model.predict(one, VOCABULARY)
        assert torch.equal(result.probabilities, expected.probabilities)
    assert model.predict([], VOCABULARY) == []


class Series:
    """What other libraries' arrays and columns have in common."""

    shape = (2,)


@pytest.mark.parametrize(
    ("image", "complaint"),
    [
        (np.zeros((4, 4, 3), dtype=np.float32), "value_range=.*float32"),
        (np.zeros((4, 4, 3), dtype=bool), "value_range=.*bool"),
        (np.zeros((4, 4, 3), dtype=complex), "complex128"),
        (np.full((4, 4, 3), "a"), "<U1"),
        (np.zeros((0, 4, 3), dtype=np.uint8), r"\(0, 4, 3\)"),
        (np.zeros((3, 4, 5), dtype=np.uint8), r"\(3, 4, 5\)"),
        (np.zeros((2, 4, 4, 3), dtype=np.uint8), r"\(2, 4, 4, 3\).*list\(array\)"),
        (np.array(["a.png", "b.png"]), r"\(2,\)"),
        (np.array(3), r"\(\)"),
        (torch.zeros(3, 4, 4), "value_range=.*float32"),
        (io.StringIO("text"), 'binary mode, open.*"rb".*str'),
        (torch.zeros(3, 4, 4, dtype=torch.uint8, device="meta"), "have values.* meta"),
        (torch.ones(3, 4, 4).to_sparse(), "dense tensor"),
        (42, "int"),
        (Series(), r"not Series; several images: list\(images\); an array: numpy\.asarray\(image\)"),
        (None, "NoneType"),
    ],
)
def test_what_is_no_image_is_refused(model, image, complaint):
    with pytest.raises(ImageError, match=f"^the image must .*{complaint}"):
        model.predict(image, VOCABULARY)
    with pytest.raises(ImageError, match=f"^image 1 must .*{complaint}"):
        model.predict([np.zeros((2, 2, 3), dtype=np.uint8), image], VOCABULARY)


def test_files_that_cannot_be_read_are_named(model, tmp_path):
    (tmp_path / "empty.png").touch()
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((90, 90, 3), dtype=np.uint8)).save(buffer, format="PNG")
    (tmp_path / "cut.png").write_bytes(buffer.getvalue()[:60])
    for name, complaint in (("empty.png", "0 bytes"), ("cut.png", "damaged"), ("none.png", "no such file")):
        for image, number in ((tmp_path / name, ""), ([str(tmp_path / name)], "image 0: ")):
            with pytest.raises(ImageReadError, match=f"^{number}{tmp_path}/{name}: .*{complaint}"):
                model.predict(image, VOCABULARY)


MISTAKES = [
    ({"batch_size": 0}, ArgumentError, "batch_size must be a whole number of at least 1, not 0"),
    ({"batch_size": "2"}, ArgumentError, "not '2'"),
    ({"batch_size": 1.5}, ArgumentError, r"not 1\.5"),
    ({"batch_size": True}, ArgumentError, "not True"),
    ({"batch_size": None}, ArgumentError, "not None"),
    ({"num_kept": 0}, ArgumentError, "num_kept must be a whole number of at least 1, not 0"),
    ({"num_kept": -3}, ArgumentError, "not -3"),
    ({"num_kept": "2"}, ArgumentError, "not '2'"),
    ({"size": 50}, ArgumentError, r"size must be \(height, width\).*, not 50"),
    ({"size": (50,)}, ArgumentError, r"not \(50,\)"),
    ({"size": (0, 5)}, ArgumentError, r"not \(0, 5\)"),
    ({"size": (5.0, 5.0)}, ArgumentError, r"not \(5\.0, 5\.0\)"),
    ({"size": "55"}, ArgumentError, "not '55'"),
    ({"tile": 0}, ArgumentError, 'tile must be "auto" or a whole number of pixels, at least 1, not 0'),
    ({"tile": 1}, ArgumentError, "tile must be at least 2 pixels, 1/32 of S = 64, not 1"),
    ({"tile": "large"}, ArgumentError, "not 'large'"),
    ({"tile": 1.5}, ArgumentError, r"not 1\.5"),
    ({"tile": True}, ArgumentError, "not True"),
    ({"tile": (512, 512)}, ArgumentError, r"not \(512, 512\)"),
    ({"value_range": 1}, ArgumentError, r"value_range must be \(black, white\).* not 1"),
    ({"value_range": (1, 0)}, ArgumentError, r"not \(1, 0\)"),
    ({"value_range": (0, float("inf"))}, ArgumentError, "inf"),
    ({"value_range": (False, True)}, ArgumentError, r"not \(False, True\)"),
    ({"value_range": "01"}, ArgumentError, "not '01'"),
    ({"channel_order": "bgra"}, ArgumentError, "channel_order must be 'rgb' or 'bgr', not 'bgra'"),
    ({"channel_order": ["bgr"]}, ArgumentError, r"not \['bgr'\]"),
    ({"images": {"a.jpg", "b.jpg"}}, ArgumentError, "images must be in a fixed order, but a set has none"),
    ({"images": {"a.jpg": 1}}, ArgumentError, "but a dict has none"),
    ({"templates": "a photo of a {}"}, VocabularyError, "templates must be a list of texts, not one string"),
    ({"templates": {"a {}", "the {}"}}, VocabularyError, "not set"),
    ({"templates": 7}, VocabularyError, "not int"),
    ({"templates": [7]}, VocabularyError, "one {} for the class name.*7"),
    ({"templates": ["a photo"]}, VocabularyError, "one {} for the class name.*'a photo'"),
    ({"templates": []}, VocabularyError, "one {} for the class name.*none"),
    ({"synonyms": "last"}, VocabularyError, "'first' or 'average', not 'last'"),
    ({"synonyms": ["first"]}, VocabularyError, "'first' or 'average'"),
    ({"vocabulary": "cat, dog"}, VocabularyError, "not one string"),
    ({"vocabulary": {"cat", "dog"}}, VocabularyError, "in the order that counts, not set"),
    ({"vocabulary": frozenset(("cat", "dog"))}, VocabularyError, "not frozenset"),
    ({"vocabulary": {"cat": 1}}, VocabularyError, "not dict"),
    ({"vocabulary": None}, VocabularyError, "not NoneType"),
    ({"vocabulary": []}, VocabularyError, "no class names"),
    ({"vocabulary": ["cat", "cat"]}, VocabularyError, "more than once: 'cat'"),
    ({"contrast": "commn"}, VocabularyError, "unknown vocabulary 'commn'"),
    ({"contrast": []}, VocabularyError, "no class names"),
    ({"batch_size": 10**30}, ArgumentError, "batch_size must be"),
    ({"num_kept": True}, ArgumentError, "not True"),
    ({"num_kept": float("nan")}, ArgumentError, "not nan"),
    ({"num_kept": torch.tensor(2)}, ArgumentError, "not tensor"),
    ({"size": {50, 60}}, ArgumentError, "not {"),
    ({"size": (True, 5)}, ArgumentError, r"not \(True, 5\)"),
    ({"tile": np.array([1, 2])}, ArgumentError, "not array"),
    ({"tile": "AUTO"}, ArgumentError, "not 'AUTO'"),
    ({"value_range": {0, 1}}, ArgumentError, "not {0, 1}"),
    ({"value_range": ("0", "1")}, ArgumentError, r"not \('0', '1'\)"),
    ({"refine": "no"}, ArgumentError, "refine must be True or False, not 'no'"),
    ({"refine": None}, ArgumentError, "not None"),
    ({"channel_order": None}, ArgumentError, "not None"),
    ({"templates": True}, VocabularyError, "not bool"),
    ({"templates": b"a {}"}, VocabularyError, "one {}"),
    ({"synonyms": True}, VocabularyError, "not True"),
    ({"vocabulary": 3}, VocabularyError, "not int"),
    ({"vocabulary": True}, VocabularyError, "not bool"),
    ({"vocabulary": ""}, VocabularyError, "unknown vocabulary ''"),
    ({"vocabulary": [3]}, VocabularyError, "class 0 is 3; expected a name"),
    ({"vocabulary": [None, "cat"]}, VocabularyError, "class 0 is None"),
    ({"vocabulary": [["cat", "dog"]]}, VocabularyError, r"class 0 is \['cat', 'dog'\]"),
    ({"vocabulary": b"cat"}, VocabularyError, "class 0 is 99"),
    ({"vocabulary": "ade15"}, VocabularyError, "did you mean 'ade150'"),
    ({"vocabulary": "words.yaml"}, VocabularyError, "no vocabulary file at"),
    ({"vocabulary": ["cat", "words.YAML"]}, VocabularyError, r"'words.YAML' in a list .*Path\('words.YAML'\)"),
    ({"vocabulary": np.array("cat")}, VocabularyError, "not ndarray"),
    ({"vocabulary": ["\ud800"]}, VocabularyError, "characters that no text may hold"),
    ({"templates": torch.tensor(3)}, VocabularyError, "not Tensor"),
    ({"synonyms": np.array(["first", "first"])}, VocabularyError, "'first' or 'average', not array"),
    ({"channel_order": np.array(["rgb", "bgr"])}, ArgumentError, "'rgb' or 'bgr', not array"),
    ({"value_range": (0, 10**400)}, ArgumentError, r"not \(0, 1000"),
    ({"value_range": (-1e308, 1e308)}, ArgumentError, r"not \(-1e\+308, 1e\+308\)"),
]


@pytest.mark.parametrize(("options", "kind", "complaint"), MISTAKES)
def test_mistakes_in_arguments(model, images, options, kind, complaint):
    """Before anything is read: the image is missing. A stream is refused when it is asked for, not when it is used."""
    for predict in (model.predict, model.predict_stream):
        with pytest.raises(kind, match=complaint):
            predict(**{"images": "missing.jpg", "vocabulary": VOCABULARY, **options})


def test_a_bar_is_shown_or_not(model, images, capsys):
    for given, total in ((images[0], "1/1"), (images, "3/3"), (iter(images), "3it")):
        model.predict(given, VOCABULARY, progress=True)
        assert total in capsys.readouterr().err
    model.predict(images, VOCABULARY)
    assert not capsys.readouterr().err
    with pytest.raises(ArgumentError, match="progress must be True or False, not 'bar'"):
        model.predict(images, VOCABULARY, progress="bar")


def test_every_argument_is_mistaken_once():
    arguments = signature(err_seg.ERRSeg.predict_stream).parameters.keys() - {"self"}
    assert {name for options, *_ in MISTAKES for name in options} == arguments


def test_generators_of_names_and_numpy_numbers_are_welcome(model, images):
    options = {"templates": (t for t in ("a {}.",)), "num_kept": np.int64(2), "batch_size": np.int32(2), "size": [5, 7]}
    result = model.predict(images[0], (name for name in VOCABULARY), **options)
    assert result.vocabulary == VOCABULARY
    assert result.size == result.labels.shape == (5, 7)
    assert len(result.kept) == 2
    with pytest.raises(ArgumentError, match="not 5"):
        result.resized(5)


def test_what_predict_raises_is_exported_and_a_value_error():
    """``except ValueError`` catches every mistake; memory is no mistake of the caller's."""
    for name in ("ArgumentError", "ImageError", "ImageReadError", "VocabularyError"):
        assert issubclass(getattr(err_seg, name), ValueError)
        assert name in err_seg.__all__
        assert name in err_seg.ERRSeg.predict_stream.__doc__
    assert issubclass(err_seg.TooLargeError, MemoryError)
    assert set(err_seg.__all__) <= set(dir(err_seg))
