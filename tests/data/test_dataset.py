import logging

import numpy as np
import pytest
from PIL import Image

from err_seg.data.dataset import SegmentationPairs
from err_seg.data.images import ImageReadError
from err_seg.data.spec import DatasetError, DatasetSpec


def write_pair(root, name, label, image=None, image_ext=".png", label_ext=".png"):
    """Write a label map and an image of its size, into images/ and labels/."""
    label = np.asarray(label)
    image = np.zeros((*label.shape, 3), np.uint8) if image is None else image
    for folder, array, ending in (("images", image, image_ext), ("labels", label, label_ext)):
        path = root / folder / f"{name}{ending}"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(array).save(path)


def make_spec(**changes):
    own = {"name": "own", "image_dir": "images", "label_dir": "labels", "vocabulary": ("a", "b", "c")}
    return DatasetSpec(**{**own, "image_ext": ".png", **changes})


def test_pairs_are_sorted_and_read(tmp_path, caplog):
    image = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    write_pair(tmp_path, "b", np.array([[0, 1, 2], [255, 0, 0]], np.uint8), image)
    write_pair(tmp_path, "a", np.zeros((4, 4), np.uint8))
    pairs = SegmentationPairs(make_spec(), tmp_path)
    assert pairs.names == ["a", "b"]
    sample = pairs[1]
    np.testing.assert_array_equal(sample.image, image)
    np.testing.assert_array_equal(sample.label, [[0, 1, 2], [255, 0, 0]])
    assert sample.label.dtype == np.int64
    assert (sample.image_path, sample.label_path) == pairs.paths(1)
    assert sample.image_path == str(tmp_path / "images" / "b.png")
    np.testing.assert_array_equal(pairs.load_label(1), sample.label)
    assert not caplog.records
    assert len(list(pairs)) == 2  # IndexError ends an iteration


def test_sub_folders_endings_and_hidden_files(tmp_path):
    label = np.zeros((2, 2), np.uint8)
    write_pair(tmp_path, "x/1", label, image_ext="_photo.JPG", label_ext="_ids.png")
    write_pair(tmp_path, "y/1", label, image_ext="_photo.png", label_ext="_ids.png")
    (tmp_path / "images" / "x" / "._1_photo.JPG").write_bytes(b"")
    (tmp_path / "labels" / "x" / "._1_ids.png").write_bytes(b"")
    spec = make_spec(image_ext=("_photo.jpg", "_photo.png"), label_ext="_ids.png")
    assert SegmentationPairs(spec, tmp_path).names == ["x/1", "y/1"]


def test_two_images_of_one_name_are_refused(tmp_path):
    write_pair(tmp_path, "a", np.zeros((2, 2), np.uint8))
    Image.new("RGB", (2, 2)).save(tmp_path / "images" / "a.jpg")
    with pytest.raises(DatasetError, match=r"a\.jpg"):
        SegmentationPairs(make_spec(image_ext=(".png", ".jpg")), tmp_path)


def test_halves_of_pairs_are_counted(tmp_path, caplog):
    for name in ("a", "b", "c", "d"):
        write_pair(tmp_path, name, np.zeros((2, 2), np.uint8))
    (tmp_path / "labels" / "b.png").unlink()
    (tmp_path / "labels" / "c.png").unlink()
    (tmp_path / "images" / "a.png").unlink()
    with caplog.at_level(logging.WARNING):
        assert SegmentationPairs(make_spec(), tmp_path).names == ["d"]
    assert "2 images without label map and 1 label maps without image" in caplog.text


def test_complete_data_set_is_silent_and_incomplete_one_is_not(tmp_path, caplog):
    for name in ("a", "b"):
        write_pair(tmp_path, name, np.zeros((2, 2), np.uint8))
    (tmp_path / "labels" / "b.png").unlink()  # as in VOC, whose images serve several splits
    SegmentationPairs(make_spec(num_images=1), tmp_path)
    assert not caplog.records
    SegmentationPairs(make_spec(num_images=5), tmp_path)
    assert "1 pairs, expected 5" in caplog.text


def test_missing_folder_names_folder_and_command(tmp_path):
    (tmp_path / "images").mkdir()
    with pytest.raises(DatasetError) as error:
        SegmentationPairs(make_spec(preparation="voc20"), tmp_path)
    assert str(tmp_path / "labels") in str(error.value)
    assert f"python datasets/prepare.py voc20 --root {tmp_path}" in str(error.value)


def test_no_pairs_says_what_was_found(tmp_path):
    write_pair(tmp_path, "a", np.zeros((2, 2), np.uint8), label_ext=".tif")
    with pytest.raises(DatasetError, match=r"1 files ending with \.png.*'a\.png'.* 0 files.*holds 'a\.tif'.*label_ext"):
        SegmentationPairs(make_spec(), tmp_path)


def test_sizes_must_agree(tmp_path):
    write_pair(tmp_path, "a", np.zeros((2, 3), np.uint8), np.zeros((2, 4, 3), np.uint8))
    write_pair(tmp_path, "b", np.zeros((2, 3), np.uint8), np.zeros((3, 2, 3), np.uint8))
    pairs = SegmentationPairs(make_spec(), tmp_path)
    with pytest.raises(DatasetError, match=r"images/a\.png is 4x2.*labels/a\.png is 3x2$"):
        pairs[0]
    with pytest.raises(DatasetError, match="EXIF"):
        pairs[1]


@pytest.mark.parametrize(
    ("dtype", "ending", "ignore_label", "value"),
    [
        (np.uint8, ".png", 255, 3),
        (np.uint8, ".png", 65535, 255),
        (np.uint16, ".tif", 65535, 255),
        (np.int32, ".tif", 255, -1),
        (np.int32, ".tif", -1, -2),
    ],
)
def test_value_out_of_range_is_named(tmp_path, dtype, ending, ignore_label, value):
    write_pair(tmp_path, "a", np.array([[0, 2, value, value]], dtype), label_ext=ending)
    pairs = SegmentationPairs(make_spec(label_ext=ending, ignore_label=ignore_label), tmp_path)
    expected = rf"a\{ending}: 2 pixels hold {value}; .* 0\.\.2 and the ignore label {ignore_label}"
    with pytest.raises(DatasetError, match=expected):
        pairs.load_label(0)


@pytest.mark.parametrize(("dtype", "ignore_label"), [(np.uint8, 255), (np.uint16, 65535), (np.int32, -1)])
def test_ignore_label_of_any_kind_is_kept(tmp_path, dtype, ignore_label):
    write_pair(tmp_path, "a", np.array([[0, 2, ignore_label]], dtype), label_ext=".tif")
    pairs = SegmentationPairs(make_spec(label_ext=".tif", ignore_label=ignore_label), tmp_path)
    np.testing.assert_array_equal(pairs.load_label(0), [[0, 2, ignore_label]])


def test_background_variant_allows_one_label_more_than_its_foreground(tmp_path):
    write_pair(tmp_path, "a", np.array([[0, 1]], np.uint8))
    write_pair(tmp_path, "b", np.array([[0, 2]], np.uint8))
    pairs = SegmentationPairs(make_spec(variant="background", num_foreground=1), tmp_path)
    np.testing.assert_array_equal(pairs.load_label(0), [[0, 1]])
    with pytest.raises(DatasetError, match=r"0\.\.1"):
        pairs.load_label(1)


def test_damaged_file_is_named(tmp_path):
    write_pair(tmp_path, "a", np.zeros((2, 2), np.uint8))
    (tmp_path / "images" / "a.png").write_bytes(b"")
    with pytest.raises(ImageReadError, match=r"images/a\.png"):
        SegmentationPairs(make_spec(), tmp_path)[0]


def test_a_part_is_spread_evenly_over_the_sorted_names(tmp_path):
    for index in range(10):
        write_pair(tmp_path, f"p{index}", np.full((2, 2), index % 3, np.uint8))
    pairs = SegmentationPairs(make_spec(), tmp_path)
    part = pairs.spread(4)
    assert part.names == ["p0", "p2", "p5", "p7"]
    assert [part.paths(index)[0] for index in range(len(part))] == [f"{tmp_path}/images/{n}.png" for n in part.names]
    assert [int(part.load_label(index)[0, 0]) for index in range(4)] == [0, 2, 2, 1]
    assert len(list(part)) == len(part) == 4
    assert part.selection == {"num_images": 4}
    assert (len(pairs), pairs.selection) == (10, {}), "the pairs themselves stay whole"
    assert pairs.spread(9).names == [name for name in pairs.names if name != "p9"]
    for count in (0, 10, 11):
        assert pairs.spread(count) is pairs
