"""Annotations of labelme, COCO and YOLO become label maps that the configuration written beside them reads."""

import json

import cv2
import numpy as np
import pytest
import yaml
from PIL import Image

from err_seg.config import get_cfg
from err_seg.config.constants import ANNOTATION_FORMATS
from err_seg.data import SegmentationPairs, load_vocabulary, spec_from_dict
from err_seg.data.images import read_label
from err_seg.data.preparation import parallel
from err_seg.data.preparation.annotations import READERS
from tests.helpers.annotations import (
    CLASSES,
    coco_content,
    contours,
    converted,
    make_images,
    mask_png,
    mean_iou,
    prepare_from,
    run_length,
    scene,
    write_json,
    write_labelme,
    write_panoptic,
    write_yolo,
)
from tests.helpers.preparation import save_image
from tests.helpers.toy import SHARED

NAMES = ("a.jpg", "night/b.jpg", "night/c.d.jpg")
CAMVID = SHARED / "camvid"


@pytest.fixture
def labels():
    return {name: scene(seed) for seed, name in enumerate(NAMES)}


def make(form, root, labels, classes=CLASSES):
    """Write images and their annotations; returns the command's arguments without --output."""
    images = root / "streets/images"
    make_images(images, labels)
    options = ["--images", images]
    if form == "labelme":
        (root / "names.txt").write_text("".join(f"{name}\n" for name in classes))
        for name, label in labels.items():
            write_labelme((images / name).parent, name.rpartition("/")[2], label, classes)
        return [form, *options, "--classes", root / "names.txt"]
    if form == "yolo":
        for name, label in labels.items():
            write_yolo((root / "streets/labels" / name).with_suffix(".txt"), label)
        (root / "streets/data.yaml").write_text(yaml.safe_dump({"names": list(classes), "train": "images"}))
        return [form, *options, "--annotations", root / "streets/data.yaml"]
    path = root / "annotations.json"
    if form == "coco-panoptic":
        write_panoptic(path, labels, classes)
    else:
        write_json(path, coco_content(labels, classes=classes))
    return [form, *options, "--annotations", path]


def label_names(labels):
    return {f"{name[:-4]}.png": label for name, label in labels.items()}


def stated(output):
    """Return the entry that dataset.yaml declares."""
    (entry,) = get_cfg(output / "dataset.yaml").DATASETS.CUSTOM
    return entry


def convert_shapes(root, shapes, size=(40, 60), background=True):
    """Convert one image with these shapes of labelme; returns its label map."""
    save_image(root / "images/a.jpg", size)
    write_labelme(root / "images", "a.jpg", np.full(size, 255, np.uint8), shapes=shapes)
    options = ["--background", "nothing"] if background else []
    assert prepare_from("labelme", "--images", root / "images", "--output", root / "out", *options) == 0
    return converted(root / "out")["a.png"]


@pytest.mark.parametrize("form", ANNOTATION_FORMATS)
def test_converting_back_gives_the_label_maps(tmp_path, labels, form):
    assert prepare_from(*make(form, tmp_path, labels), "--output", tmp_path / "my_streets") == 0
    found = converted(tmp_path / "my_streets")
    assert found.keys() == label_names(labels).keys()
    for name, label in label_names(labels).items():
        assert found[name].dtype == np.uint8
        if form.startswith("coco"):
            np.testing.assert_array_equal(found[name], label)
        else:
            assert mean_iou(found[name], label) > 0.95
            assert (found[name] != label).mean() < 0.01


@pytest.mark.parametrize("form", ANNOTATION_FORMATS)
def test_the_configuration_reads_the_label_maps(tmp_path, labels, form, capsys):
    output = tmp_path / "my_streets"
    assert prepare_from(*make(form, tmp_path, labels), "--output", output) == 0
    cfg = get_cfg(output / "dataset.yaml")
    assert (cfg.DATASETS.TRAIN, cfg.DATASETS.TEST) == (["my_streets"], ["my_streets"])
    assert (output / "dataset.yaml").read_text() in capsys.readouterr().out
    spec = spec_from_dict(stated(output))
    assert (spec.name, spec.vocabulary, spec.ignore_label) == ("my_streets", CLASSES, 255)
    assert load_vocabulary(output / "classes.txt") == CLASSES
    pairs = SegmentationPairs(spec)
    assert pairs.names == sorted(name[:-4] for name in NAMES)
    assert all(set(np.unique(sample.label)) <= {0, 1, 2, 3, 255} for sample in pairs)


def test_images_and_label_maps_may_move_together(tmp_path, labels):
    assert prepare_from(*make("coco", tmp_path / "here", labels), "--output", tmp_path / "here/out") == 0
    (tmp_path / "here").rename(tmp_path / "there")
    assert len(SegmentationPairs(spec_from_dict(stated(tmp_path / "there/out")))) == 3


def test_the_formats_are_those_of_the_command():
    assert tuple(READERS) == ANNOTATION_FORMATS


@pytest.mark.skipif(not CAMVID.is_dir(), reason="CamVid is not here")
@pytest.mark.parametrize("form", ANNOTATION_FORMATS)
def test_real_label_maps_come_back(tmp_path, form):
    classes = ["sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian", "bicyclist"]
    paths = sorted((CAMVID / "valannot").glob("*.png"))[::25]
    labels = {path.with_suffix(".jpg").name: np.where((label := read_label(path)) == 11, 255, label) for path in paths}
    assert prepare_from(*make(form, tmp_path, labels, classes), "--output", tmp_path / "out") == 0
    for name, label in converted(tmp_path / "out").items():
        assert mean_iou(label, labels[name.replace("png", "jpg")]) > (0.95 if form in ("labelme", "yolo") else 0.9999)


def test_coco_polygons_and_uncompressed_runs(tmp_path, labels):
    def polygons(mask):
        large = np.kron(mask.astype(np.uint8), np.ones((8, 8), np.uint8))
        parts, _ = cv2.findContours(large, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        return [((part[:, 0] + 0.5) / 8).ravel().tolist() for part in parts]

    path = tmp_path / "annotations.json"
    arguments = make("coco", tmp_path, labels)
    write_json(path, coco_content(labels, lambda mask: run_length(mask, compressed=False)))
    assert prepare_from(*arguments, "--output", tmp_path / "runs") == 0
    write_json(path, coco_content(labels, polygons))
    assert prepare_from(*arguments, "--output", tmp_path / "polygons") == 0
    runs, drawn = converted(tmp_path / "runs"), converted(tmp_path / "polygons")
    for name, label in label_names(labels).items():
        np.testing.assert_array_equal(runs[name], label)
        assert mean_iou(drawn[name], label) > 0.95


def test_small_instances_lie_over_large_ones_and_crowds_below_all(tmp_path):
    masks = np.zeros((3, 20, 30), bool)
    masks[0, 5:10, 5:10] = masks[1, :, :20] = masks[2, 8:9, 8:9] = True
    save_image(tmp_path / "images/a.jpg", (20, 30))
    content = coco_content({"a.jpg": np.full((20, 30), 255, np.uint8)})
    content["annotations"] = [
        {"id": k, "image_id": 7, "category_id": 3 + 10 * k, "segmentation": run_length(mask), "iscrowd": int(k == 2)}
        for k, mask in enumerate(masks)
    ]
    write_json(tmp_path / "a.json", content)
    arguments = ["--images", tmp_path / "images", "--annotations", tmp_path / "a.json"]
    assert prepare_from("coco", *arguments, "--output", tmp_path / "out") == 0
    expected = np.full((20, 30), 255)
    expected[masks[1]], expected[masks[0]] = 1, 0  # the crowd, though smallest, is hidden
    np.testing.assert_array_equal(converted(tmp_path / "out")["a.png"], expected)


def test_every_kind_of_area_of_labelme(tmp_path):
    stamp = np.array([[1, 0, 1], [0, 1, 0]], bool)
    label = convert_shapes(
        tmp_path,
        [
            {"label": "box", "shape_type": "rectangle", "points": [[10.9, 8.2], [4.0, 3.5]]},
            {"label": "disc", "shape_type": "circle", "points": [[30, 20], [30, 25]]},
            {"label": "stamp", "shape_type": "mask", "points": [[50, 30], [52, 31]], "mask": mask_png(stamp)},
            {"label": "old", "points": [[0, 39], [3, 39], [3, 36], [0, 36]]},
        ],
    )
    expected = np.full((40, 60), 4)  # box, disc, old, stamp, nothing
    expected[3:9, 4:11] = 0
    expected[36:40, 0:4] = 2
    expected[30:32, 50:53][stamp] = 3
    rows, columns = np.indices(label.shape)
    distance = np.hypot(rows - 20, columns - 30)
    assert (label[distance < 4.5] == 1).all()
    assert (label[(distance > 5.8) & (distance < 9)] == 4).all()
    np.testing.assert_array_equal(label[distance > 9], expected[distance > 9])


def test_later_shapes_lie_over_earlier_ones_and_a_large_one_hides_a_small_one(tmp_path):
    small = {"label": "a", "shape_type": "rectangle", "points": [[5, 5], [9, 9]]}
    large = {"label": "b", "shape_type": "rectangle", "points": [[0, 0], [30, 30]]}
    assert set(np.unique(convert_shapes(tmp_path / "one", [large, small]))) == {0, 1, 2}
    assert set(np.unique(convert_shapes(tmp_path / "two", [small, large]))) == {1, 2}


def test_what_is_no_area_is_counted_by_kind(tmp_path, capsys):
    shapes = [{"label": "a", "shape_type": kind, "points": [[1, 1], [9, 9]]} for kind in ("line", "point", "line")]
    box = {"label": "a", "shape_type": "rectangle", "points": [[5, 5], [9, 9]]}
    label = convert_shapes(tmp_path, [*shapes, box], background=False)
    assert (label == 0).sum() == 25
    assert (label == 255).sum() == label.size - 25
    out = capsys.readouterr().out
    assert "2 shapes of the kind line left out" in out
    assert "1 shapes of the kind point left out" in out


def test_boxes_without_an_area_are_counted(tmp_path, capsys):
    label = {"a.jpg": scene()}
    arguments = make("yolo", tmp_path, label)
    with (tmp_path / "streets/labels/a.txt").open("a") as file:
        file.write("1 0.5 0.5 0.2 0.2\n")
    assert prepare_from(*arguments, "--output", tmp_path / "out") == 0
    assert "1 shapes of the kind box left out" in capsys.readouterr().out
    content = coco_content(label)
    content["annotations"].append({"id": 99, "image_id": 7, "category_id": 3, "bbox": [1, 1, 9, 9], "segmentation": []})
    write_json(tmp_path / "a.json", content)
    arguments = ["coco", "--images", tmp_path / "streets/images", "--annotations", tmp_path / "a.json"]
    assert prepare_from(*arguments, "--output", tmp_path / "out") == 0
    assert "1 shapes of the kind box left out" in capsys.readouterr().out
    np.testing.assert_array_equal(converted(tmp_path / "out")["a.png"], label["a.jpg"])


def test_background_is_what_nothing_covers(tmp_path, labels, capsys):
    arguments = [*make("coco", tmp_path, labels), "--output", tmp_path / "out"]
    assert prepare_from(*arguments, "--background", "void") == 0
    assert stated(tmp_path / "out")["vocabulary"] == [*CLASSES, "void"]
    for name, label in label_names(labels).items():
        np.testing.assert_array_equal(converted(tmp_path / "out")[name], np.where(label == 255, 4, label))
    assert prepare_from(*arguments, "--background", "vehicle") == 0, "a synonym of a class is that class"
    assert stated(tmp_path / "out")["vocabulary"] == list(CLASSES)
    label = label_names(labels)["a.png"]
    np.testing.assert_array_equal(converted(tmp_path / "out")["a.png"], np.where(label == 255, 2, label))


@pytest.mark.parametrize("form", ANNOTATION_FORMATS)
def test_an_image_with_nothing_on_it_is_written_with_background_only(tmp_path, labels, form, capsys):
    labels["night/b.jpg"] = np.full((30, 40), 255, np.uint8)
    arguments = [*make(form, tmp_path, labels), "--output", tmp_path / "out"]
    assert prepare_from(*arguments) == 0
    assert "night/b.png" not in converted(tmp_path / "out")
    assert "1 left out (no class in them; the first: night/b)" in capsys.readouterr().out
    assert prepare_from(*arguments, "--background", "void") == 0
    assert (converted(tmp_path / "out")["night/b.png"] == 4).all()
    assert prepare_from(*arguments) == 0
    assert "night/b.png" not in converted(tmp_path / "out"), "that of other options is not kept"


@pytest.mark.parametrize("form", ANNOTATION_FORMATS)
def test_images_without_annotations_are_counted(tmp_path, labels, form, capsys):
    arguments = make(form, tmp_path, labels)
    save_image(tmp_path / "streets/images/night/z.png", (9, 9))
    assert prepare_from(*arguments, "--output", tmp_path / "out") == 0
    assert "1 images without annotations left out" in capsys.readouterr().out
    assert converted(tmp_path / "out").keys() == label_names(labels).keys()


def test_labels_are_sorted_or_follow_the_file_of_classes_and_its_synonyms(tmp_path, capsys):
    labels = {"a.jpg": scene()}
    arguments = make("labelme", tmp_path, labels, classes=("sky", "road", "vehicle", "tree"))[:3]
    assert prepare_from(*arguments, "--output", tmp_path / "sorted") == 0
    assert stated(tmp_path / "sorted")["vocabulary"] == ["road", "sky", "tree", "vehicle"]
    (tmp_path / "own.yaml").write_text("[tree, 'car, vehicle', road, bus, sky]")
    assert prepare_from(*arguments, "--output", tmp_path / "own", "--classes", tmp_path / "own.yaml") == 0
    assert stated(tmp_path / "own")["vocabulary"] == ["tree", "car, vehicle", "road", "bus", "sky"]
    first, second = converted(tmp_path / "sorted")["a.png"], converted(tmp_path / "own")["a.png"]
    np.testing.assert_array_equal(second, np.array([2, 4, 0, 1, *[255] * 252])[first])


@pytest.mark.parametrize("form", ANNOTATION_FORMATS)
def test_a_label_that_is_none_of_the_classes_is_an_error_before_anything_is_written(tmp_path, labels, form, capsys):
    arguments = make(form, tmp_path, labels, classes=("sky", "road", "vehicle", "tree"))
    (tmp_path / "names.txt").write_text("sky\nvehicles\nroad\n")
    command = [*arguments, "--output", tmp_path / "out", "--classes", tmp_path / "names.txt"]
    assert prepare_from(*command) == 1
    error = capsys.readouterr().err
    assert "'tree' (nothing is like it), 'vehicle' (did you mean 'vehicles'?)" in error
    assert not (tmp_path / "out").exists()


def test_labelme_ignores_what_it_names_so(tmp_path):
    (shape,) = [{"label": "__ignore__", "shape_type": "rectangle", "points": [[0, 0], [9, 9]]}]
    label = convert_shapes(tmp_path, [{**shape, "label": "road", "points": [[0, 0], [20, 20]]}, shape])
    assert (label[:10, :10] == 255).all()
    assert set(np.unique(label)) == {0, 1, 255}


def test_more_than_255_classes_have_16_bits(tmp_path):
    label = np.repeat(np.arange(20, dtype=np.uint8)[None], 10, axis=0)
    names = [f"kind {chr(97 + k // 26)}{chr(97 + k % 26)}" for k in range(300)]
    arguments = make("coco", tmp_path, {"a.jpg": label}, classes=names)
    content = json.loads((tmp_path / "annotations.json").read_text())
    for annotation in content["annotations"]:
        annotation["category_id"] += 2800  # of index + 280
    write_json(tmp_path / "annotations.json", content)
    assert prepare_from(*arguments, "--output", tmp_path / "out") == 0
    (found,) = converted(tmp_path / "out").values()
    np.testing.assert_array_equal(found, label.astype(int) + 280)
    spec = spec_from_dict(stated(tmp_path / "out"))
    assert (spec.label_ext, spec.ignore_label, found.dtype) == (".tif", 65535, np.uint16)
    assert len(SegmentationPairs(spec)) == 1


@pytest.mark.parametrize("count", [255, 256])
def test_the_ignore_label_is_no_class(tmp_path, count):
    label = np.full((4, 4), 255, np.uint8)
    label[0] = 254
    names = [f"kind {chr(97 + k // 26)}{chr(97 + k % 26)}" for k in range(count)]
    assert prepare_from(*make("coco", tmp_path, {"a.jpg": label}, classes=names), "--output", tmp_path / "out") == 0
    (found,) = converted(tmp_path / "out").values()
    np.testing.assert_array_equal(found, np.where(label == 255, 255 if count == 255 else 65535, label.astype(int)))


def test_annotations_fit_the_upright_image(tmp_path, capsys):
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying: viewers and annotation programs turn it
    label = scene(size=(128, 96))
    make_images(tmp_path / "images", {})
    save_image(tmp_path / "images/a.jpg", (96, 128), exif=exif)
    write_labelme(tmp_path / "images", "a.jpg", label)
    arguments = ["labelme", "--images", tmp_path / "images", "--output", tmp_path / "out"]
    assert prepare_from(*arguments) == 0
    (sample,) = SegmentationPairs(spec_from_dict(stated(tmp_path / "out")))
    assert sample.image.shape[:2] == sample.label.shape == (128, 96)
    write_labelme(tmp_path / "images", "a.jpg", label.T)
    assert prepare_from(*arguments) == 1
    assert "a.json: is for 128x96 pixels; " in capsys.readouterr().err


def test_yolo_numbers_are_fractions_of_the_upright_size(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 8
    label = {"a.jpg": scene(size=(128, 96))}
    arguments = make("yolo", tmp_path, label)
    save_image(tmp_path / "streets/images/a.jpg", (96, 128), exif=exif)
    assert prepare_from(*arguments, "--output", tmp_path / "out") == 0
    assert mean_iou(converted(tmp_path / "out")["a.png"], label["a.jpg"]) > 0.95


def test_yolo_with_a_folder_of_labels_takes_the_names_of_classes(tmp_path, labels):
    make("yolo", tmp_path, labels)
    (tmp_path / "streets/labels").rename(tmp_path / "elsewhere")
    (tmp_path / "elsewhere/classes.txt").write_text("\n".join(CLASSES))
    arguments = ["yolo", "--images", tmp_path / "streets/images", "--annotations", tmp_path / "elsewhere"]
    classes = ["--classes", tmp_path / "elsewhere/classes.txt"]
    assert prepare_from(*arguments, "--output", tmp_path / "out", *classes) == 0
    assert stated(tmp_path / "out")["vocabulary"] == list(CLASSES)
    assert mean_iou(converted(tmp_path / "out")["a.png"], labels["a.jpg"]) > 0.95


def test_yolo_splits_have_labels_beside_their_images(tmp_path, labels):
    make_images(tmp_path / "images/of/train/images", labels)
    for name, label in labels.items():
        write_yolo((tmp_path / "images/of/train/labels" / name).with_suffix(".txt"), label)
    (tmp_path / "data.yaml").write_text(yaml.safe_dump({"names": dict(enumerate(CLASSES))}))
    images = tmp_path / "images/of/train/images"
    arguments = ["yolo", "--images", images, "--annotations", tmp_path / "data.yaml"]
    assert prepare_from(*arguments, "--output", tmp_path / "out") == 0
    assert converted(tmp_path / "out").keys() == label_names(labels).keys()


def test_labelme_files_in_a_folder_of_their_own(tmp_path, labels):
    images = tmp_path / "streets"
    make_images(images, labels)
    for name, label in labels.items():
        folder = (tmp_path / "annotations" / name).parent
        up = "../../" if "/" in name else "../"
        # labelme states the way from the file to the image; other programs the bare name, or with "\\"
        stated_as = {"a.jpg": f"{up}streets/a.jpg", NAMES[1]: "b.jpg", NAMES[2]: f"{up}streets/night/c.d.jpg"}[name]
        write_labelme(folder, name.rpartition("/")[2], label, imagePath=stated_as.replace("/", "\\"))
    arguments = ["labelme", "--images", images, "--annotations", tmp_path / "annotations"]
    assert prepare_from(*arguments, "--output", tmp_path / "out") == 0
    assert converted(tmp_path / "out").keys() == label_names(labels).keys()
    only = ["--annotations", tmp_path / "annotations/night/b.json", "--output", tmp_path / "one"]
    assert prepare_from("labelme", "--images", images / "night", *only) == 0
    assert converted(tmp_path / "one").keys() == {"b.png"}


def test_a_pool_of_processes_gives_the_same_files(tmp_path, monkeypatch, labels):
    from err_seg.commands.prepare import main

    monkeypatch.setattr(parallel, "_WORTH_A_PROCESS", 1)
    monkeypatch.setattr(parallel, "start_method", lambda: "fork")
    arguments = make("labelme", tmp_path, labels)
    assert prepare_from(*arguments, "--output", tmp_path / "one") == 0
    assert main(["from", *map(str, arguments), "--output", str(tmp_path / "two"), "--workers", "2"]) == 0
    one, two = converted(tmp_path / "one"), converted(tmp_path / "two")
    assert one.keys() == two.keys()
    assert all((one[name] == two[name]).all() for name in one)


def test_polygons_are_drawn_as_labelme_draws_them():
    from PIL import ImageDraw

    from err_seg.data.preparation.annotations import Shape, area_of

    for _, corners in contours(scene()):
        moved = corners + np.random.default_rng(0).uniform(0, 0.99, corners.shape)
        image = Image.new("L", (128, 96))
        ImageDraw.Draw(image).polygon([tuple(point) for point in moved], outline=1, fill=1)
        area = area_of(Shape("shape", "a", "polygon", {"points": moved.tolist()}), (96, 128))
        assert (area != np.asarray(image).astype(bool)).sum() <= 0.02 * area.sum()
