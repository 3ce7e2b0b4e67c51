"""Entries that take a data set as it comes: split files, label values, colours, classes left out, seen classes."""

import json
from dataclasses import asdict

import numpy as np
import pytest
import torch
from PIL import Image

from err_seg.config import get_cfg
from err_seg.data import (
    DatasetError,
    DatasetSpec,
    ImageReadError,
    PairError,
    SegmentationPairs,
    TrainingTransform,
    read_label,
    spec_from_dict,
    training_loader,
)
from err_seg.data.catalog import Catalog
from err_seg.data.dataset import read_checked_label
from err_seg.data.ground_truth import check_ground_truth
from err_seg.data.label_values import LabelRule
from err_seg.data.loader import label_dtype
from err_seg.utils.fingerprint import fingerprint
from err_seg.utils.images import BACKGROUND
from tests.helpers.toy import SHARED

STREETS = ["road", "car, automobile", "sky"]
CITYSCAPES = {
    **{7: "road", 8: "sidewalk", 11: "building", 12: "wall", 13: "fence", 17: "pole", 19: "traffic light"},
    **{20: "traffic sign", 21: "vegetation", 22: "terrain", 23: "sky", 24: "person", 25: "rider", 26: "car"},
    **{27: "truck", 28: "bus", 31: "train", 32: "motorcycle", 33: "bicycle"},
}
CAMVID = ["sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian", "bicyclist"]


def declare(**more):
    names = {"name": "own", "image_dir": "images", "label_dir": "labels", "image_ext": ".png"}
    return spec_from_dict({**names, "vocabulary": STREETS, **more})


def write(path, pixels, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(np.asarray(pixels))
    image.save(path, **options)


def write_pair(root, name, label=((0, 1),), label_name=""):
    label = np.array(label, np.uint8)
    write(root / "images" / f"{name}.png", np.zeros((*label.shape, 3), np.uint8))
    write(root / "labels" / f"{label_name or name}.png", label)


def read(spec, pixels, root, **options):
    write(root / "label.png", pixels, **options)
    return read_checked_label(spec, str(root / "label.png")).tolist()


def split_of(root, text, **more):
    (root / "val.txt").write_text(text, encoding="utf-8")
    return SegmentationPairs(declare(split="val.txt", **more), root)


# --- the split file


def test_a_split_lists_names_and_leaves_out_the_others_silently(tmp_path, caplog):
    for name in ("b", "a/1", "c", "with space"):
        write_pair(tmp_path, name)
    write(tmp_path / "images" / "unlabelled.png", np.zeros((1, 2, 3), np.uint8))
    pairs = split_of(tmp_path, "# validation\n\nwith space\nc\n  a/1 \n")
    assert pairs.names == ["a/1", "c", "with space"]
    assert pairs.paths(0) == (str(tmp_path / "images/a/1.png"), str(tmp_path / "labels/a/1.png"))
    assert not caplog.records


@pytest.mark.parametrize(
    "line",
    [
        "x/1.png y.png",  # inside the folders
        "images/x/1.png labels/y.png",  # inside the folder that holds both
        "/SegNet/CamVid/images/x/1.png /SegNet/CamVid/labels/y.png",  # as SegNet's lists
        "/x/1 y",
        "x/1.png\ty",
    ],
)
def test_a_line_may_name_image_and_label_map(tmp_path, line):
    write_pair(tmp_path, "x/1", label_name="y")
    write_pair(tmp_path, "other")
    pairs = split_of(tmp_path, line)
    assert pairs.names == ["x/1"]
    assert pairs.paths(0) == (str(tmp_path / "images/x/1.png"), str(tmp_path / "labels/y.png"))


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("a\nb\n", r"own.*val\.txt, line 2: no image 'b' in .*images. Check image_dir, label_dir, image_ext"),
        ("unlabelled\n", r"line 1: no label map 'unlabelled' in .*labels"),
        ("a.png b.png", r"line 1: no label map 'b\.png'"),
        ("train/a.png labels/a.png", r"line 1: no image 'train/a\.png'"),  # another folder is another split
        ("images_2/a.png", r"line 1: no image"),
        ("a\n\na.png a.png\n", r"line 3 lists 'a' again"),
        ("a b c", r"line 1: no image 'a b c'"),
        ("# nothing\n", r"val\.txt lists no pair"),
    ],
)
def test_what_is_wrong_in_a_split_is_named_with_its_line(tmp_path, text, complaint):
    write_pair(tmp_path, "a")
    write(tmp_path / "images" / "unlabelled.png", np.zeros((1, 2, 3), np.uint8))
    with pytest.raises(DatasetError, match=complaint):
        split_of(tmp_path, text)


def test_a_split_that_cannot_be_read(tmp_path):
    write_pair(tmp_path, "a")
    with pytest.raises(DatasetError, match=r"split .*none\.txt cannot be read"):
        SegmentationPairs(declare(split="none.txt"), tmp_path)
    with pytest.raises(DatasetError, match="split is 3"):
        declare(split=3)


# --- label values


def test_ids_stand_for_classes(tmp_path):
    spec = declare(label_map={7: "road", 26: "car", 27: 1, 23: "SKY", 0: "ignore"})
    assert read(spec, np.array([[7, 26, 27, 23, 0, 255]], np.uint8), tmp_path) == [[0, 1, 1, 2, 255, 255]]
    same = declare(label_map={"road": 7, "car": [26, 27], "sky": 23, "ignore": [0]})
    assert same == spec
    assert hash(same) == hash(spec)


def test_values_that_are_not_listed(tmp_path):
    strict = {"road": 7, "car": 26, "sky": 23}
    label = np.array([[7, 8, 8, 40]], np.uint8)
    complaint = r"label\.png: 3 pixels hold .* \(8, 40\); list them in label_map or ignore_label .*\(others: ignore\)"
    with pytest.raises(PairError, match=complaint):
        read(declare(label_map=strict), label, tmp_path)
    assert read(declare(label_map={**strict, "others": "ignore"}), label, tmp_path) == [[0, 255, 255, 255]]
    assert read(declare(label_map={"car": 26, "sky": 23, "others": "road"}), label, tmp_path) == [[0, 0, 0, 0]]
    by_id = {26: "car", 23: "sky", "others": 0}
    assert read(declare(label_map=by_id), label, tmp_path) == [[0, 0, 0, 0]]


@pytest.mark.parametrize("dtype", [np.int16, np.int32])
def test_ids_beyond_eight_bits_and_below_zero(tmp_path, dtype):
    spec = declare(label_map={-1: "ignore", 26001: "car", 300: "sky", 0: "road"})
    path = tmp_path / "label.tif"
    Image.fromarray(np.array([[-1, 26001], [300, 0]], np.int32)).save(path)
    assert read_checked_label(spec, str(path)).tolist() == [[255, 1], [2, 0]]
    values = np.array([-1, 26001, 300, 0], dtype)
    assert spec.label_rule(values).tolist() == [255, 1, 2, 0]
    for beyond in (-2, 26002, 1, -(2**15), 2**15 - 1):
        with pytest.raises(ValueError, match=rf"\({beyond}\)"):
            spec.label_rule(np.array([beyond], dtype))


def test_zero_is_unlabelled(tmp_path):
    spec = declare(reduce_zero_label=True)
    assert read(spec, np.array([[0, 1, 2, 3, 255]], np.uint8), tmp_path) == [[255, 0, 1, 2, 255]]
    with pytest.raises(PairError, match=r"\(4\)"):
        read(spec, np.array([[4]], np.uint8), tmp_path)
    assert declare(reduce_zero_label=False) == declare()


def test_several_ignored_values_become_the_first(tmp_path):
    spec = declare(ignore_label=[255, 250, 9])
    assert spec.ignore_label == 255
    assert read(spec, np.array([[0, 2, 250, 9, 255]], np.uint8), tmp_path) == [[0, 2, 255, 255, 255]]
    with pytest.raises(PairError, match=r"\(3\)"):
        read(spec, np.array([[3]], np.uint8), tmp_path)
    mapped = declare(label_map={1: "road", 2: "car", 3: "sky"}, ignore_label=[255, 0])
    assert read(mapped, np.array([[0, 1, 3, 255]], np.uint8), tmp_path) == [[255, 0, 2, 255]]
    assert declare(ignore_label=[255]) == declare()


def test_background_variant_names_what_labels_stand_for(tmp_path):
    spec = declare(label_map={0: "background", 1: "road"}, variant="background", num_foreground=1)
    assert read(spec, np.array([[0, 1, 255]], np.uint8), tmp_path) == [[1, 0, 255]]


def test_values_that_hold_no_data_are_ignored(tmp_path):
    spec = declare(label_map={7: "road", 8: "car", 9: "sky"})
    path = tmp_path / "label.tif"
    Image.fromarray(np.array([[7, 8, 9]], np.uint8)).save(path, tiffinfo={42113: "8"})  # GDAL's tag
    assert read_checked_label(spec, str(path)).tolist() == [[0, 255, 2]]


# --- colours

PALETTE = {"road": [128, 64, 128], "car": [[0, 0, 142], [0, 0, 70]], "sky": [70, 130, 180], "ignore": [0, 0, 0]}
COLOURS = np.array([[[128, 64, 128], [0, 0, 142], [0, 0, 70]], [[70, 130, 180], [0, 0, 0], [128, 64, 128]]], np.uint8)
LABELS = [[0, 1, 1], [2, 255, 0]]


def test_colours_stand_for_classes(tmp_path):
    spec = declare(palette=PALETTE)
    image = Image.fromarray(COLOURS)
    assert read(spec, COLOURS, tmp_path) == LABELS
    assert read(spec, image.convert("RGBA"), tmp_path) == LABELS
    assert read(spec, image.quantize(), tmp_path) == LABELS  # a palette file, whose indices are arbitrary
    assert Image.open(tmp_path / "label.png").mode == "P"
    in_order = declare(palette=[[128, 64, 128], [0, 0, 142], [70, 130, 180]])
    assert read(in_order, COLOURS[:, :1], tmp_path) == [[0], [2]]
    assert read(in_order, COLOURS[:1, :2], tmp_path) == [[0, 1]]


def test_a_colour_that_is_not_listed(tmp_path):
    other = COLOURS.copy()
    other[0, 0] = 1, 2, 3
    complaint = r"1 pixels hold values .*\(\(1, 2, 3\)\); list them in palette"
    with pytest.raises(PairError, match=complaint):
        read(declare(palette=PALETTE), other, tmp_path)
    assert read(declare(palette={**PALETTE, "others": "ignore"}), other, tmp_path)[0] == [255, 1, 1]


@pytest.mark.parametrize(
    ("mode", "ending", "complaint"),
    [
        ("L", "png", "expected opaque colours.*mode L.*label_map"),
        ("I;16", "png", "expected opaque colours.*mode I;16"),
        ("RGB", "jpg", "JPEG"),
        ("RGB", "webp", "WebP"),
        ("RGBA", "png", "expected opaque colours.*mode RGBA.*transparency"),
    ],
)
def test_files_without_reliable_colours_are_refused(tmp_path, mode, ending, complaint):
    image = Image.fromarray(COLOURS).convert("L" if mode == "I;16" else mode).convert(mode)
    if mode == "RGBA":
        image.putpixel((0, 0), (128, 64, 128, 254))
    image.save(tmp_path / f"label.{ending}")
    with pytest.raises(ImageReadError, match=complaint):
        read_checked_label(declare(palette={**PALETTE, "others": "ignore"}), str(tmp_path / f"label.{ending}"))


def test_colours_without_a_palette_are_refused_with_advice(tmp_path):
    with pytest.raises(
        ImageReadError, match=r"channels R\+G\+B.*declare the colours by palette in the data set's entry"
    ):
        read(declare(), COLOURS, tmp_path)


# --- contradictions


@pytest.mark.parametrize(
    ("entry", "complaint"),
    [
        ({"label_map": {0: "road"}, "palette": PALETTE}, "label_map and palette contradict"),
        ({"label_map": {0: "road"}, "reduce_zero_label": True}, "label_map and reduce_zero_label contradict"),
        ({"label_map": {"road": 1, "car": [1, 2], "sky": 3}}, "label_map: 1 has more than one meaning"),
        (
            {"label_map": {1: "road", 2: "car", 3: "sky"}, "ignore_label": [255, 2]},
            "2 has more than one meaning .of classes and ignored values",
        ),
        ({"ignore_label": [255, 2]}, "2 has more than one meaning .of classes and ignored values"),
        ({"label_map": {1: "road", 2: "sky"}}, "label_map has no value for 'car, automobile'"),
        ({"label_map": {}}, "label_map has no value for 'road'"),
        ({"label_map": {1: "road", 2: "car", 3: "skye"}}, "'skye' is not one of the 3 classes; did you mean 'sky'"),
        ({"label_map": {1: "road", 2: "car", 3: 3}}, "3 is not one of the 3 classes"),
        ({"label_map": {1: "road", 2: True, 3: "sky"}}, "True is not one of the 3 classes"),
        ({"label_map": {1: "road", "car": 2, "sky": 3}}, "has 'road', expected an id.* all names, or all ids"),
        ({"label_map": {"road": 1.5, "car": 2, "sky": 3}}, "has 1.5, expected an id"),
        ({"label_map": {"road": 2**24, "car": 2, "sky": 3}}, "has 16777216, expected an id"),
        ({"label_map": {"road": 1, "car": 2, "sky": 3, "others": "rest"}}, "'rest' is not one of the 3 classes"),
        ({"label_map": {"road": 1, "car": 2, "sky": 3, "others": 9}}, "9 is not one of the 3 classes"),
        ({"label_map": ["road"]}, r"label_map is \['road'\], expected a mapping"),
        ({"reduce_zero_label": "yes"}, "reduce_zero_label is 'yes', expected"),
        ({"palette": [[0, 0, 0]]}, "expected a mapping.* a list of 3 colours"),
        ({"palette": {**PALETTE, "sky": [0, 0, 256]}}, r"has \[0, 0, 256\], expected a colour"),
        ({"palette": {**PALETTE, "sky": "#ffffff"}}, r"has \['#ffffff'\], expected a colour"),
        ({"palette": {**PALETTE, "sky": [0, 0, 142]}}, r"\[0, 0, 142\] has more than one meaning"),
        ({"palette": PALETTE, "ignore_label": [255, 0]}, "has 255, expected a colour"),
        ({"ignore_label": []}, "ignore_label is None, expected an integer"),
        ({"ignore_label": [255, "x"]}, "has 'x', expected an id"),
        ({"ignore_label": BACKGROUND}, "ignore_label"),
        ({"label_rule": None}, "unknown key 'label_rule'"),
        ({"left_out": ["skye"]}, "'skye' is not one of the 3 classes; did you mean 'sky'"),
        ({"left_out": STREETS}, "left_out .*some but not all"),
        (
            {"left_out": ["sky"], "left_out_as": "nothing"},
            "left_out_as is 'nothing', expected one of ignored, background",
        ),
        ({"left_out": 3}, "own.*3|own.*int"),
        ({"left_out": ["sky"], "variant": "background", "num_foreground": 2}, "left_out .*variant 'background'"),
        ({"seen": ["bus"]}, "'bus' is not one of the 3 classes"),
        ({"seen": STREETS}, "seen .*some but not all"),
        ({"seen": "pascal_voc_20b"}, "seen .*some but not all|is not one of"),
    ],
)
def test_what_an_entry_contradicts_is_named(entry, complaint):
    with pytest.raises(DatasetError, match=complaint) as error:
        declare(**entry)
    assert str(error.value).count("data set 'own'") == 1


def test_names_of_spec_are_checked_as_well():
    with pytest.raises(DatasetError, match=r"seen .*names of the vocabulary"):
        DatasetSpec("own", "images", "labels", ("a", "b"), seen=("c",))


# --- Cityscapes' layout


def test_cityscapes_layout(tmp_path):
    ids = np.arange(34, dtype=np.uint8)[None].repeat(2, 0)
    for city in ("aachen", "bochum"):
        stem = f"{city}/{city}_000000_000019"
        write(tmp_path / f"leftImg8bit/train/{stem}_leftImg8bit.png", np.zeros((2, 34, 3), np.uint8))
        for kind in ("labelIds", "instanceIds"):
            write(tmp_path / f"gtFine/train/{stem}_gtFine_{kind}.png", ids)
    spec = spec_from_dict(
        {
            "name": "cityscapes_train",
            "image_dir": "leftImg8bit/train",
            "label_dir": "gtFine/train",
            "image_ext": "_leftImg8bit.png",
            "label_ext": "_gtFine_labelIds.png",
            "vocabulary": list(CITYSCAPES.values()),
            "label_map": {**CITYSCAPES, "others": "ignore"},
        }
    )
    pairs = SegmentationPairs(spec, tmp_path)
    assert pairs.names == ["aachen/aachen_000000_000019", "bochum/bochum_000000_000019"]
    expected = [list(CITYSCAPES).index(value) if value in CITYSCAPES else 255 for value in range(34)]
    assert pairs[0].label.tolist() == [expected] * 2
    assert sorted(set(expected)) == [*range(19), 255]


# --- classes left out of training


def test_classes_left_out_are_ignored_in_training():
    spec = declare(left_out=["car"])
    training = spec.for_training()
    assert training.vocabulary == ("road", "sky")
    assert training.label_rule(np.array([0, 1, 2, 255])).tolist() == [0, 255, 1, 255]
    assert (training.left_out, training.seen, training.name) == ((), (), "own")
    assert spec.vocabulary == tuple(STREETS)
    assert declare().for_training() == declare()
    assert declare(left_out="car") == spec, "one name may stand alone"


def test_classes_left_out_are_background_in_training(tmp_path):
    write_pair(tmp_path, "a", [[7, 26, 23, 0], [7, 7, 9, 26]])
    mapped = {"label_map": {"road": 7, "car": 26, "sky": 23, "ignore": 0, "others": "car"}}
    spec = declare(left_out=["car"], left_out_as="background", **mapped)
    pairs = SegmentationPairs(spec.for_training(), tmp_path)
    assert pairs[0].label.tolist() == [[0, BACKGROUND, 1, 255], [0, 0, BACKGROUND, BACKGROUND]]
    assert label_dtype(pairs.spec) == torch.int16
    assert label_dtype(declare(left_out=["car"])) == torch.uint8
    check_ground_truth(pairs, trains=True)
    transform = TrainingTransform(8, min_sizes=[2], color_jitter="none", flip_prob=0)
    batch = next(iter(training_loader(pairs, transform, 1, seed=0, workers=0)))
    assert batch.labels.dtype == torch.int16
    assert batch.labels[0, :2, :4].tolist() == pairs[0].label.tolist()
    assert batch.labels[0, 2:].unique().tolist() == [255]  # padding is ignored


def test_background_counts_as_a_class_where_a_crop_is_chosen():
    label = np.full((8, 64), BACKGROUND)
    label[:, 60:] = 0
    transform = TrainingTransform(8, min_sizes=[8], color_jitter="none", flip_prob=0, single_category_max_area=0.75)
    found = [transform(np.zeros((8, 64, 3), np.uint8), label, seed)[1].unique().tolist() for seed in range(12)]
    plain = TrainingTransform(8, min_sizes=[8], color_jitter="none", flip_prob=0)
    usual = [plain(np.zeros((8, 64, 3), np.uint8), label, seed)[1].unique().tolist() for seed in range(12)]
    assert sum(len(values) > 1 for values in found) > sum(len(values) > 1 for values in usual)


# --- seen classes


def test_seen_classes_by_name_by_vocabulary_and_by_what_is_left_out(tmp_path):
    assert declare().seen_and_unseen == ()
    assert declare(seen=["sky", "Car"]).seen_and_unseen == ((1, 2), (0,))
    assert declare(left_out=["car"]).seen_and_unseen == ((0, 2), (1,))
    assert declare(left_out=["car"], seen=["road"]).seen_and_unseen == ((0,), (1, 2))
    (tmp_path / "base.txt").write_text("Car\nroad, street\ntree\n")
    assert declare(seen=str(tmp_path / "base.txt")).seen == ("road", "car, automobile")
    foreground = declare(seen=["car"], variant="background", num_foreground=2)
    assert foreground.seen_and_unseen == ((1,), (0,))  # "background" is in neither


# --- records


def test_records_of_earlier_versions_stay_valid():
    """What an entry without the new keys is recorded as has not changed, so that its fingerprint has not, either."""
    spec = declare()
    new = {"split", "label_rule", "left_out", "left_out_as", "seen"}
    assert spec.facts() == {key: value for key, value in asdict(spec).items() if key not in new}
    assert list(spec.facts())[-1] == "aliases"
    assert fingerprint(spec.facts()) == "54b2f24aed957629805fd59724d99217"
    full = declare(split="a.txt", reduce_zero_label=True, left_out=["car"], left_out_as="background", seen=["road"])
    assert new <= full.facts().keys()
    assert json.loads(json.dumps(full.facts()))["label_rule"]["labels"][0] == [0, 255]


def test_entries_of_a_configuration(tmp_path):
    """Whole numbers as keys survive a configuration file; the same entry twice is one data set."""
    text = "DATASETS:\n  CUSTOM:\n  - {name: own, image_dir: i, label_dir: l, vocabulary: [a, b],"
    (tmp_path / "cfg.yaml").write_text(f"{text} label_map: {{7: a, 8: b, others: ignore}}, split: v.txt}}\n")
    cfg = get_cfg(tmp_path / "cfg.yaml")
    (tmp_path / "again.yaml").write_text(cfg.dump())
    specs = [spec_from_dict(c.DATASETS.CUSTOM[0]) for c in (cfg, get_cfg(tmp_path / "again.yaml"))]
    assert specs[0].label_rule == LabelRule(((7, 0), (8, 1), (255, 255)), others=255)
    catalog = Catalog(specs)
    with pytest.raises(DatasetError, match="differs in left_out"):
        catalog.register(spec_from_dict({**cfg.DATASETS.CUSTOM[0], "left_out": ["a"]}))


# --- real photographs


@pytest.mark.skipif(not (SHARED / "camvid").is_dir(), reason="needs CamVid")
def test_camvid_by_colours_and_with_zero_unlabelled(tmp_path):
    entry = {"name": "camvid", "image_dir": str(SHARED / "camvid/val"), "label_ext": ".png", "vocabulary": CAMVID}
    index_maps = SegmentationPairs(
        spec_from_dict({**entry, "label_dir": str(SHARED / "camvid/valannot"), "ignore_label": 11})
    )
    palette = np.random.default_rng(0).integers(0, 256, (12, 3), dtype=np.uint8)
    for name in index_maps.names[:8]:
        label = read_label(SHARED / "camvid/valannot" / f"{name}.png")
        write(tmp_path / "colours" / f"{name}.png", palette[label])
        write(tmp_path / "shifted" / f"{name}.png", np.where(label == 11, 0, label + 1).astype(np.uint8))
    (tmp_path / "few.txt").write_text("\n".join(index_maps.names[:8]))
    few = {**entry, "ignore_label": 11, "split": str(tmp_path / "few.txt")}
    colours = {name: color.tolist() for name, color in zip([*CAMVID, "ignore"], palette, strict=True)}
    for folder, keys in (("colours", {"palette": colours}), ("shifted", {"reduce_zero_label": True})):
        pairs = SegmentationPairs(spec_from_dict({**few, "label_dir": str(tmp_path / folder), **keys}))
        assert pairs.names == index_maps.names[:8]
        for index in range(8):
            np.testing.assert_array_equal(pairs.load_label(index), index_maps.load_label(index))
