"""What predict takes, in every form, and what it refuses, always with an error that the package exports."""

import io

import numpy as np
import pytest
import torch
from conftest import VOCABULARY
from PIL import Image

import err_seg
from err_seg import ArgumentError, ImageError, ImageReadError, Segmentation, VocabularyError
from err_seg.data.images import image_to_tensor


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


def test_generators_are_read_a_batch_at_a_time(model, images):
    """So that a folder of any size fits; and the first damaged image ends it."""
    read = []

    def generate():
        for number, image in enumerate([*images, "missing.jpg", *images]):
            read.append(number)
            yield image

    with pytest.raises(ImageReadError, match=r"missing\.jpg: no such file"):
        model.predict(generate(), VOCABULARY)
    assert read == [0, 1, 2, 3]


def test_arrays_of_any_strides(images):
    rgb = images[0]
    bgr = np.ascontiguousarray(rgb[:, :, ::-1])
    read_only = rgb.copy()
    read_only.setflags(write=False)
    wide = np.zeros((*rgb.shape[:2], 5), dtype=np.uint8)
    wide[:, :, 1:4] = rgb
    upside_down, mirrored = np.ascontiguousarray(rgb[::-1]), np.ascontiguousarray(rgb[:, ::-1])
    arrays = (
        bgr[:, :, ::-1],
        upside_down[::-1],
        mirrored[:, ::-1],
        wide[:, :, 1:4],
        np.asfortranarray(rgb),
        read_only,
        np.broadcast_to(rgb, rgb.shape),
        np.repeat(rgb, 2, axis=1)[:, ::2],
    )
    expected = torch.from_numpy(rgb).permute(2, 0, 1)
    for array in arrays:
        assert torch.equal(image_to_tensor(array), expected)
    tensor = image_to_tensor(read_only)
    tensor += 1  # its own memory
    assert (read_only == rgb).all()


@pytest.mark.parametrize(
    ("image", "complaint"),
    [
        (np.zeros((4, 4, 3), dtype=np.float32), "float32"),
        (np.zeros((4, 4, 3), dtype=np.uint16), "uint16"),
        (np.zeros((4, 4), dtype=np.uint8), r"\(4, 4\)"),
        (np.zeros((0, 4, 3), dtype=np.uint8), r"\(0, 4, 3\)"),
        (np.zeros((3, 4, 5), dtype=np.uint8), r"\(3, 4, 5\)"),
        (np.zeros((2, 4, 4, 3), dtype=np.uint8), r"\(2, 4, 4, 3\).*list\(array\)"),
        (np.array(["a.png", "b.png"]), r"\(2,\)"),
        (np.array(3), r"\(\)"),
        (torch.zeros(3, 4, 4), "float32"),
        (42, "int"),
        (None, "NoneType"),
        (b"\x89PNG", "bytes"),
    ],
)
def test_what_is_no_image_is_refused(model, image, complaint):
    with pytest.raises(ImageError, match=f"^the image must be .*{complaint}|^image 0 must be .*{complaint}"):
        model.predict(image, VOCABULARY)
    with pytest.raises(ImageError, match=f"^image 1 must be .*{complaint}"):
        model.predict([np.zeros((2, 2, 3), dtype=np.uint8), image], VOCABULARY)


def test_files_that_cannot_be_read_are_named(model, tmp_path):
    (tmp_path / "empty.png").touch()
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((90, 90, 3), dtype=np.uint8)).save(buffer, format="PNG")
    (tmp_path / "cut.png").write_bytes(buffer.getvalue()[:60])
    for name, complaint in (("empty.png", "0 bytes"), ("cut.png", "damaged"), ("none.png", "no such file")):
        for image in (tmp_path / name, [str(tmp_path / name)]):
            with pytest.raises(ImageReadError, match=f"{name}: .*{complaint}"):
                model.predict(image, VOCABULARY)


@pytest.mark.parametrize(
    ("options", "kind", "complaint"),
    [
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
        ({"tile": "large"}, ArgumentError, "not 'large'"),
        ({"tile": 1.5}, ArgumentError, r"not 1\.5"),
        ({"tile": True}, ArgumentError, "not True"),
        ({"tile": (512, 512)}, ArgumentError, r"not \(512, 512\)"),
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
    ],
)
def test_mistakes_in_arguments(model, images, options, kind, complaint):
    """Before anything is read: the image is missing."""
    with pytest.raises(kind, match=complaint):
        model.predict("missing.jpg", **{"vocabulary": VOCABULARY, **options})


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
        assert name in err_seg.modeling.ERRSeg.predict.__doc__
    assert issubclass(err_seg.TooLargeError, MemoryError)
    assert set(err_seg.__all__) <= set(dir(err_seg))
