import json

import numpy as np
import pycocotools.mask
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from PIL import Image

from err_seg.data.images import read_label as load_label_png
from err_seg.visualization.colors import class_colors
from err_seg.visualization.label_files import rle_segments, save_label_png, save_rle_json
from tests.helpers.rle import labels_from_rle, load_rle_json

NAMES = ["sky", "tree", "bed "]


def names(count):
    return [f"class {index}" for index in range(count)]


@pytest.mark.parametrize(
    ("num_classes", "dtype", "nothing"), [(3, np.uint8, 255), (255, np.uint8, 255), (256, np.uint16, 65535)]
)
def test_png_round_trip(num_classes, dtype, nothing, tmp_path):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, num_classes, (20, 31))
    labels[0, :2] = [num_classes - 1, -1]
    save_label_png(labels, tmp_path / "labels.png", names(num_classes), ignore_label=-1)
    loaded = load_label_png(tmp_path / "labels.png")
    assert loaded.dtype == dtype
    np.testing.assert_array_equal(loaded, np.where(labels == -1, nothing, labels))


def test_sixteen_bit_labels_survive(tmp_path):
    labels = np.array([[0, 255, 256, 846]], dtype=np.uint16)
    save_label_png(labels, tmp_path / "a847.png", names(847))
    np.testing.assert_array_equal(load_label_png(tmp_path / "a847.png"), labels)


def test_png_shows_the_class_colours(tmp_path):
    save_label_png(np.array([[2, 0], [1, 9]]), tmp_path / "labels.png", NAMES, ignore_label=9)
    with Image.open(tmp_path / "labels.png") as image:
        assert image.mode == "P"
        seen = np.array(image.convert("RGB"))
    colors = class_colors(NAMES)
    np.testing.assert_array_equal(seen, [[colors[2], colors[0]], [colors[1], (0, 0, 0)]])


def test_a_refused_png_leaves_the_old_file(tmp_path):
    path = tmp_path / "labels.png"
    save_label_png(np.array([[1]]), path, NAMES)
    with pytest.raises(ValueError, match=r"holds 3 at row 0, column 1, expected 0\.\.2$"):
        save_label_png(np.array([[0, 3]]), path, NAMES)
    with pytest.raises(ValueError, match=r"holds -1 .* expected 0\.\.2 or 255"):
        save_label_png(np.array([[255, -1]]), path, NAMES, ignore_label=255)
    with pytest.raises(ValueError, match="array of integers, found float64"):
        save_label_png(np.array([[0.0]]), path, NAMES)
    with pytest.raises(ValueError, match="at most 65535"):
        save_label_png(np.array([[0]]), path, names(65536))
    assert load_label_png(path).tolist() == [[1]]
    assert list(tmp_path.iterdir()) == [path]


def test_colour_images_are_no_label_maps(tmp_path):
    Image.new("RGB", (2, 2)).save(tmp_path / "photo.png")
    with pytest.raises(ValueError, match=r"photo\.png: a label map has one channel .*mode RGB"):
        load_label_png(tmp_path / "photo.png")


@settings(deadline=None)
@given(
    npst.arrays(
        np.int64,
        npst.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=8),
        elements=st.sampled_from([0, 1, 2, 255]),
    ).filter(lambda labels: (labels != 255).any())
)
def test_rle_round_trip(labels):
    ids = [7, 92, 1]
    segments = json.loads(json.dumps(rle_segments(labels, "a.jpg", NAMES, category_ids=ids, ignore_label=255)))
    np.testing.assert_array_equal(labels_from_rle(segments, category_ids=ids, nothing=255), labels)
    assert sum(segment["area"] for segment in segments) == (labels != 255).sum()


def test_rle_layout():
    labels = np.array([[2, 2, 0], [2, 0, 0]], dtype=np.uint8)
    first, second = rle_segments(labels, "b.jpg", NAMES, category_ids=[10, 11, 12], scores={2: 0.75})
    assert {key: first[key] for key in first if key != "segmentation"} == {
        "file_name": "b.jpg",
        "category_id": 10,
        "category_name": "sky",
        "area": 3,
    }
    assert (second["category_id"], second["category_name"], second["score"]) == (12, "bed ", 0.75)
    assert first["segmentation"]["size"] == [2, 3]
    mask = pycocotools.mask.decode(second["segmentation"])
    np.testing.assert_array_equal(mask, labels == 2)
    assert pycocotools.mask.area(second["segmentation"]) == 3


def test_segments_of_many_images_are_one_json_list(tmp_path):
    images = {f"{i}é.jpg": np.random.default_rng(i).integers(0, 3, (6, 5)) for i in range(3)}
    path = tmp_path / "predictions.json"
    count = save_rle_json(
        (segment for name, labels in images.items() for segment in rle_segments(labels, name, NAMES)), path
    )
    loaded = load_rle_json(path)
    assert loaded == json.loads(path.read_text(encoding="utf-8"))
    assert len(loaded) == count == 9
    for name, labels in images.items():
        own = [segment for segment in loaded if segment["file_name"] == name]
        np.testing.assert_array_equal(labels_from_rle(own), labels)
    assert save_rle_json([], path) == 0
    assert load_rle_json(path) == []


def test_an_interrupted_export_leaves_nothing(tmp_path):
    def segments():
        yield from rle_segments(np.array([[0]]), "a.jpg", NAMES)
        raise RuntimeError("the model failed")

    with pytest.raises(RuntimeError, match="the model failed"):
        save_rle_json(segments(), tmp_path / "predictions.json")
    assert list(tmp_path.iterdir()) == []


def test_bad_segments_are_refused(tmp_path):
    segments = rle_segments(np.array([[0, 1]]), "a.jpg", NAMES)
    with pytest.raises(ValueError, match="found 0"):
        labels_from_rle([])
    with pytest.raises(ValueError, match="one image, found 2"):
        labels_from_rle([segments[0], {**segments[1], "file_name": "b.jpg"}])
    with pytest.raises(ValueError, match=r"a\.jpg: category id 1 is not"):
        labels_from_rle(segments, category_ids=[0, 5])
    with pytest.raises(ValueError, match="category id for each of 3"):
        rle_segments(np.array([[0]]), "a.jpg", NAMES, category_ids=[1])
    for text in ("[", "{}", '[{"file_name": 1}]', "[3]"):
        (tmp_path / "x.json").write_text(text)
        with pytest.raises(ValueError, match=r"x\.json"):
            load_rle_json(tmp_path / "x.json")
