"""Annotations that are damaged, inconsistent or dangerous are named; the other images are converted."""

import json

import numpy as np
import pytest
from filelock import FileLock
from PIL import Image

from tests.helpers.annotations import (
    coco_content,
    converted,
    make_images,
    prepare_from,
    run_length,
    scene,
    write_json,
    write_labelme,
    write_panoptic,
    write_yolo,
)
from tests.helpers.preparation import files, save_image, truncate

SIZE = (96, 128)


@pytest.fixture
def labels():
    return {"a.jpg": scene(0), "b.jpg": scene(1)}


def convert(root, form, *options, annotations=None):
    """Run the command on ``root/images``; returns its exit status."""
    places = ["--annotations", annotations] if annotations else []
    return prepare_from(form, "--images", root / "images", *places, "--output", root / "out", *options)


def named(capsys, root, *texts):
    """Check that one error names all the texts, and that the other image was converted."""
    captured = capsys.readouterr()
    (error,) = [line for line in captured.err.splitlines() if line and line != "errors:" and "it/s" not in line]
    for text in texts:
        assert str(text) in error
    assert "Traceback" not in captured.err
    assert list(converted(root / "out")) == ["b.png"]
    assert (root / "out/dataset.yaml").exists()


def shape(points=((1, 1), (9, 1), (9, 9)), **others):
    return {"label": "sky", "shape_type": "polygon", "points": [list(point) for point in points], **others}


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"shapes": [shape([(1, 1), (9, 9)])]}, "shape 1 (sky): has 2 points, expected at least 3"),
        (
            {"shapes": [shape(), shape([(1, 1), (5000, 20), (7, 7)])]},
            "shape 2 (sky): has the point (5000, 20), far out",
        ),
        ({"shapes": [shape([(1, 1), (9, -40), (7, 7)])]}, "the point (9, -40), far outside of the image of 128x96"),
        ({"shapes": [shape([(1, 1), (9, float("nan")), (7, 7)])]}, "the point (9, nan), far outside"),
        ({"shapes": [shape([(1, 1), (9, 9)], shape_type="mask", mask="no PNG")]}, "shape 1 (sky): "),
        ({"shapes": [{"points": []}]}, "has no 'label'"),
        ({"shapes": None}, "NoneType"),
        ({"imageHeight": 97}, "is for 128x97 pixels"),
        ({"imagePath": "c.jpg"}, "names 'c.jpg', but there is no such file inside of"),
        ({"imagePath": "../a.jpg"}, "names '../a.jpg', but there is no such file inside of"),
        ({"imagePath": "..\\..\\etc\\a.jpg"}, "but there is no such file inside of"),
        ({"imagePath": "/etc/passwd"}, "names '/etc/passwd', but there is no such file inside of"),
    ],
)
def test_labelme(tmp_path, labels, capsys, change, complaint):
    make_images(tmp_path / "images", labels)
    save_image(tmp_path / "a.jpg", SIZE)  # beside the folder of images
    for name, label in labels.items():
        write_labelme(tmp_path / "images", name, label, **(change if name == "a.jpg" else {}))
    assert convert(tmp_path, "labelme") == 1
    named(capsys, tmp_path, tmp_path / "images/a.json", complaint)


@pytest.mark.parametrize("content", [b"", b'{"shapes": [', b"[1, 2]", b'"text"', b"\xff\xfe"])
def test_a_file_that_is_not_of_labelme(tmp_path, labels, capsys, content):
    make_images(tmp_path / "images", labels)
    write_labelme(tmp_path / "images", "b.jpg", labels["b.jpg"])
    (tmp_path / "images/a.json").write_bytes(content)
    assert convert(tmp_path, "labelme") == 1
    named(capsys, tmp_path, f"{tmp_path / 'images/a.json'}: ")


def test_a_mask_that_reaches_out_of_the_image(tmp_path, labels, capsys):
    from tests.helpers.annotations import mask_png

    make_images(tmp_path / "images", labels)
    write_labelme(tmp_path / "images", "b.jpg", labels["b.jpg"])
    for corner in ((120, 50), (-2, 50)):
        mask = shape([corner, (127, 60)], shape_type="mask", mask=mask_png(np.ones((11, 20), bool)))
        write_labelme(tmp_path / "images", "a.jpg", labels["a.jpg"], shapes=[mask])
        assert convert(tmp_path, "labelme") == 1
        named(capsys, tmp_path, "a.json: shape 1 (sky): ")


@pytest.mark.parametrize("file", ["a.jpg", "a.json"])
def test_files_cut_short(tmp_path, labels, capsys, file):
    make_images(tmp_path / "images", labels)
    for name, label in labels.items():
        write_labelme(tmp_path / "images", name, label)
    truncate(tmp_path / "images" / file)
    assert convert(tmp_path, "labelme") == 1
    named(capsys, tmp_path, tmp_path / "images/a.json", tmp_path / "images" / file)


def square(size):
    mask = np.zeros(size, bool)
    mask[:5, :5] = True
    return mask


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"segmentation": [[1, 1, 9, 9]]}, "id 1 (sky): has 2 points"),
        ({"segmentation": [[1, 1, 9, 9, 5]]}, "id 1 (sky): "),
        ({"segmentation": [[1, 1, 9, 9, 500, 1]]}, "(500, 1), far outside"),
        ({"segmentation": run_length(square((96, 127)))}, "is not one of 128x96 pixels"),
        ({"segmentation": {"size": [96, 128], "counts": [5, 10]}}, "is not one of 128x96 pixels"),
        ({"segmentation": {"size": [96, 128], "counts": [5, 96 * 128]}}, "id 1 (sky): "),
        ({"segmentation": {**run_length(square((96, 100))), "size": [96, 128]}}, "is not one of 128x96 pixels"),
        ({"segmentation": {"size": [96, 128]}}, "has no 'counts'"),
        ({"category_id": 77}, "category_id 77 is not in its categories"),
    ],
)
def test_coco(tmp_path, labels, capsys, change, complaint):
    make_images(tmp_path / "images", labels)
    content = coco_content(labels)
    content["annotations"][0] |= change
    write_json(tmp_path / "a.json", content)
    assert convert(tmp_path, "coco", annotations=tmp_path / "a.json") == 1
    named(capsys, tmp_path, f"{tmp_path / 'a.json'}: image 7: ", complaint)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"file_name": "../a.jpg"}, "no such file inside of"),
        ({"file_name": "c.jpg"}, "no such file inside of"),
        ({"height": 90}, "is for 128x90 pixels"),
    ],
)
def test_images_of_coco(tmp_path, labels, capsys, change, complaint):
    make_images(tmp_path / "images", labels)
    save_image(tmp_path / "a.jpg", SIZE)
    content = coco_content(labels)
    content["images"][0] |= change
    write_json(tmp_path / "a.json", content)
    assert convert(tmp_path, "coco", annotations=tmp_path / "a.json") == 1
    named(capsys, tmp_path, f"{tmp_path / 'a.json'}: image 7: ", complaint)


def test_coco_annotations_of_an_image_that_is_not_listed(tmp_path, labels, capsys):
    make_images(tmp_path / "images", labels)
    content = coco_content(labels)
    del content["images"][0]
    write_json(tmp_path / "a.json", content)
    assert convert(tmp_path, "coco", annotations=tmp_path / "a.json") == 1
    named(capsys, tmp_path, tmp_path / "a.json", "image_id 7 of annotations is not in its images")


def test_panoptic(tmp_path, labels, capsys):
    make_images(tmp_path / "images", labels)
    path = tmp_path / "a.json"

    def check(complaint):
        assert convert(tmp_path, "coco-panoptic", annotations=path) == 1
        named(capsys, tmp_path, f"{path}: image 7: ", complaint)

    write_panoptic(path, labels)
    content = json.loads(path.read_text())
    content["annotations"][0]["segments_info"][0]["id"] = 5
    write_json(path, content)
    check("holds the ids 70000, which segments_info lacks")
    write_panoptic(path, labels)
    Image.open(tmp_path / "a/a.png").crop((0, 0, 100, 96)).save(tmp_path / "a/a.png")
    check("a.png is 100x96 pixels, its image 128x96")
    truncate(tmp_path / "a/a.png")
    check("a.png")
    (tmp_path / "a/a.png").unlink()
    check("names 'a.png', but there is no such file")
    content["annotations"][0]["file_name"] = "../b.png"
    write_json(path, content)
    check("names '../b.png', but there is no such file")


def test_a_panoptic_file_is_read_again_by_every_run(tmp_path):
    save_image(tmp_path / "images/a.jpg", SIZE)
    for label in (scene(0), scene(1), scene(0)):
        write_panoptic(tmp_path / "a.json", {"a.jpg": label})
        assert convert(tmp_path, "coco-panoptic", annotations=tmp_path / "a.json") == 0
        np.testing.assert_array_equal(converted(tmp_path / "out")["a.png"], label)


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("0 0.1 0.1 0.5", "line 3 (sky): "),
        ("0 0.1 0.1", "line 3 (sky): has 1 points"),
        ("0 0.1 0.1 0.5 0.5 20 0.7", "line 3 (sky): has the point (2560, 67.2), far outside"),
        ("0 0.1 0.1 0.5 0.5 x 0.7", "could not convert string to float: 'x'"),
        ("9 0.1 0.1 0.5 0.5 0.2 0.7", "line 3: '9' is not the number of a class"),
        ("sky 0.1 0.1 0.5 0.5 0.2 0.7", "line 3: 'sky' is not the number of a class"),
    ],
)
def test_yolo(tmp_path, labels, capsys, line, complaint):
    make_images(tmp_path / "images", labels)
    write_yolo(tmp_path / "labels/b.txt", labels["b.jpg"])
    (tmp_path / "labels/a.txt").write_text(f"0 0.1 0.1 0.5 0.5 0.2 0.7\n\n{line}\n")
    (tmp_path / "data.yaml").write_text("names: [sky, road, car, tree]")
    assert convert(tmp_path, "yolo", annotations=tmp_path / "data.yaml") == 1
    named(capsys, tmp_path, tmp_path / "labels/a.txt", complaint)


def test_yolo_labels_need_one_image_and_names(tmp_path, labels, capsys):
    make_images(tmp_path / "images", labels)
    for name in ("a", "b", "c"):
        write_yolo(tmp_path / f"labels/{name}.txt", labels["b.jpg"])
    (tmp_path / "images/a.jpg").rename(tmp_path / "images/c.png")
    (tmp_path / "data.yaml").write_text("names: [sky, road, car, tree]")
    assert convert(tmp_path, "yolo", annotations=tmp_path / "data.yaml") == 1
    assert f"{tmp_path / 'labels/a.txt'}: expected one image {tmp_path / 'images/a'}.*, found none" in (
        capsys.readouterr().err
    )
    save_image(tmp_path / "images/a.jpg", SIZE)
    save_image(tmp_path / "images/a.png", SIZE)
    assert convert(tmp_path, "yolo", annotations=tmp_path / "data.yaml") == 1
    assert "a.jpg" in (error := capsys.readouterr().err)
    assert "a.png" in error
    assert convert(tmp_path, "yolo", annotations=tmp_path / "labels") == 1
    assert "is not the number of a class in data.yaml or --classes" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("form", "name", "content"),
    [
        ("coco", "a.json", "{"),
        ("coco", "a.json", "{}"),
        ("coco", "a.json", "[]"),
        ("yolo", "data.yaml", "train: images"),
        ("yolo", "data.yaml", "names: {"),
        ("labelme", "nothing", None),
        ("coco", "nothing.json", None),
        ("yolo", "nothing", None),
    ],
)
def test_annotations_that_cannot_be_read_at_all(tmp_path, labels, capsys, form, name, content):
    make_images(tmp_path / "images", labels)
    if content is not None:
        (tmp_path / name).write_text(content)
    assert convert(tmp_path, form, annotations=tmp_path / name) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"error: {tmp_path / name}")
    assert "Traceback" not in error
    assert not (tmp_path / "out").exists()


def test_nothing_to_convert(tmp_path, labels, capsys):
    make_images(tmp_path / "images", labels)
    assert convert(tmp_path, "labelme") == 1
    assert f"nothing to convert: {tmp_path / 'images'} holds no annotations" in capsys.readouterr().err
    write_labelme(tmp_path / "images", "a.jpg", labels["a.jpg"], shapes=[])
    assert convert(tmp_path, "labelme", "--classes", "voc20") == 1
    assert "no label map was written: no class in any of them" in capsys.readouterr().err
    assert not (tmp_path / "out/dataset.yaml").exists()


@pytest.mark.parametrize("again", [False, True])
def test_two_for_one_label_map_are_an_error(tmp_path, labels, capsys, again):
    make_images(tmp_path / "images", labels)
    write_labelme(tmp_path / "images", "a.jpg", labels["a.jpg"])
    if again:
        write_labelme(tmp_path / "images/more", "a.jpg", labels["a.jpg"], imagePath="../a.jpg")
        others = [tmp_path / "images/a.json", tmp_path / "images/more/a.json"]
    else:
        save_image(tmp_path / "images/a.png", SIZE)
        save_image(tmp_path / "images/c.png", SIZE)
        write_labelme(tmp_path / "images", "c.jpg", labels["a.jpg"], imagePath="c.png")
        others = [tmp_path / "images/a.jpg", tmp_path / "images/a.png"]
    assert convert(tmp_path, "labelme") == 1
    error = capsys.readouterr().err
    assert f"two for one label map, a.png: {others[0]}, {others[1]}; remove or rename one" in error
    assert not (tmp_path / "out").exists()


def test_a_label_map_of_other_annotations_is_never_kept(tmp_path, labels, capsys):
    make_images(tmp_path / "images", labels)
    for name, label in labels.items():
        write_labelme(tmp_path / "images", name, label)
    assert convert(tmp_path, "labelme") == 0
    before = files(tmp_path / "out")
    write_labelme(tmp_path / "images", "a.jpg", labels["b.jpg"])
    assert convert(tmp_path, "labelme") == 0
    after = files(tmp_path / "out")
    assert after["labels/a.png"] == after["labels/b.png"] == before["labels/b.png"] != before["labels/a.png"]
    (tmp_path / "images/a.json").write_text("{")
    assert convert(tmp_path, "labelme") == 1
    named(capsys, tmp_path, "a.json")
    write_labelme(tmp_path / "images", "a.jpg", labels["a.jpg"])
    assert convert(tmp_path, "labelme") == 0
    assert files(tmp_path / "out") == before
    (tmp_path / "images/a.json").unlink()
    assert convert(tmp_path, "labelme") == 0
    assert list(converted(tmp_path / "out")) == ["b.png"]


def test_an_interrupted_run_leaves_no_configuration(tmp_path, labels, monkeypatch, capsys):
    from err_seg.data.preparation import own

    make_images(tmp_path / "images", labels)
    for name, label in labels.items():
        write_labelme(tmp_path / "images", name, label)
    assert convert(tmp_path, "labelme") == 0
    before = files(tmp_path / "out")

    def interrupt(label, path):
        if path.name == "b.png":
            raise KeyboardInterrupt
        write(label, path)

    write = own.write_label
    monkeypatch.setattr(own, "write_label", interrupt)
    assert convert(tmp_path, "labelme") == 130
    assert "interrupted; rerun the same command" in capsys.readouterr().err
    assert files(tmp_path / "out").keys() == {"classes.txt", "labels/a.png"}
    monkeypatch.undo()
    assert convert(tmp_path, "labelme") == 0
    assert files(tmp_path / "out") == before


def test_foreign_files_and_other_runs_are_left_alone(tmp_path, labels, capsys):
    make_images(tmp_path / "images", labels)
    write_labelme(tmp_path / "images", "a.jpg", labels["a.jpg"])
    save_image(tmp_path / "out/labels/mine.png", SIZE)
    before = files(tmp_path)
    assert convert(tmp_path, "labelme") == 1
    assert f"{tmp_path / 'out/labels'} holds files that this command did not write" in capsys.readouterr().err
    assert files(tmp_path) == before
    (tmp_path / "out/labels/mine.png").unlink()
    assert convert(tmp_path, "labelme") == 0
    before = files(tmp_path)
    with FileLock(tmp_path / "out/labels/.prepare.lock"):
        assert convert(tmp_path, "labelme") == 1
    assert "another run is preparing" in capsys.readouterr().err
    assert files(tmp_path) == before


def test_usage(tmp_path, capsys):
    for arguments in (["darknet"], ["coco"], ["labelme", "--workers", "0"]):
        with pytest.raises(SystemExit) as stopped:
            prepare_from(*arguments, "--images", tmp_path, "--output", tmp_path / "out")
        assert stopped.value.code == 2
    assert "coco needs --annotations" in capsys.readouterr().err
    assert prepare_from("labelme", "--images", tmp_path / "nowhere", "--output", tmp_path / "out") == 1
    assert f"{tmp_path / 'nowhere'} does not exist" in capsys.readouterr().err
