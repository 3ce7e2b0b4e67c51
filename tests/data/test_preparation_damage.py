"""The preparation command on archives that are incomplete or damaged."""

import re
import shutil

import numpy as np
import pytest

from tests.helpers.preparation import (
    CONTEXT_ID,
    CONVERTED,
    files,
    make_ade847,
    make_coco,
    make_context,
    make_voc,
    prepare,
    save_image,
    save_label,
    truncate,
)


def test_damaged_json_is_named(tmp_path, capsys):
    make_context(tmp_path)
    (tmp_path / "VOCdevkit/VOC2010/trainval_merged.json").write_text('{"images": [')
    assert prepare(tmp_path, "pc59") == 1
    assert "trainval_merged.json is damaged" in capsys.readouterr().err


def test_force_keeps_what_was_made_of_a_file_that_is_damaged_now_and_says_so(tmp_path, capsys):
    make_voc(tmp_path, {"2007_000001": [[1] * 80] * 80, "2007_000002": [[2, 2]]})
    assert prepare(tmp_path, "voc20") == 0
    folder = tmp_path / "VOCdevkit/VOC2012/annotations_detectron2/val"
    before = files(folder)
    truncate(tmp_path / "VOCdevkit/VOC2012/SegmentationClass/2007_000001.png")
    capsys.readouterr()
    assert prepare(tmp_path, "voc20", "--force") == 1
    captured = capsys.readouterr()
    assert files(folder) == before, "it may be all that is left of the raw file"
    assert "1 written, 0 kept, 1 skipped as damaged (listed below), 1 of which an earlier run's" in captured.out
    assert "voc20 val: 1 label maps, the protocol has 1,449" in captured.out, "what is stale does not count"
    assert f"the file that an earlier run made of it is kept: {folder / '2007_000001.png'}" in captured.err


def test_missing_archive_says_where_to_get_it_and_what_was_found(tmp_path, capsys):
    make_voc(tmp_path)
    (tmp_path / "VOCdevkit/VOC2010").mkdir()
    assert prepare(tmp_path, "pc459", "voc20") == 1
    message = capsys.readouterr().err
    assert str(tmp_path / "VOCdevkit/VOC2010/trainval") in message
    assert "VOC2010 is empty" in message
    assert "https://cs.stanford.edu/~roozbeh/pascal-context" in message
    assert (tmp_path / CONVERTED["voc20"][0]).exists(), "the others are prepared all the same"
    shutil.rmtree(tmp_path / "VOCdevkit/VOC2012")
    assert prepare(tmp_path, "voc20") == 1
    assert "VOCdevkit holds VOC2010/" in capsys.readouterr().err


def make_voc_without_a_label(root):
    make_voc(root, {"2007_000001": [[1, 1]], "2007_000002": [[2, 2]]})
    (root / "VOCdevkit/VOC2012/SegmentationClass/2007_000002.png").unlink()
    return "voc20 val", "2007_000002"


def make_coco_without_a_label(root):
    make_coco(root)
    save_image(root / "coco-stuff/images/val2017/000000000009.jpg", (2, 3))
    return "coco-stuff val2017", "000000000009"


def make_ade_without_a_label(root):
    make_ade847(root)
    save_image(root / "ADE20K_2021_17_01/images/ADE/validation/urban/street/ADE_val_2.jpg", (2, 3))
    return "ade847 validation", "ADE_val_2"


@pytest.mark.parametrize(
    "make", [make_voc_without_a_label, make_coco_without_a_label, make_ade_without_a_label], ids=lambda f: f.__name__
)
def test_image_that_lacks_its_label_map_sets_the_exit_status_and_the_others_are_done(tmp_path, capsys, make):
    what, stem = make(tmp_path)
    for done in ("1 written, 0 kept", "0 written, 1 kept"):
        assert prepare(tmp_path, what.split()[0]) == 1
        captured = capsys.readouterr()
        assert f"{what}: {done}" in captured.out
        assert f"{what}: no label map for 1 of its images ({stem}); unpack the label maps again" in captured.err


@pytest.mark.parametrize(
    ("make", "name", "file"), [(make_voc, "voc20", "2007_000001.png"), (make_context, "pc459", ".tif")]
)
def test_full_disk_is_named_and_the_same_command_goes_on(tmp_path, small_disk, capfd, make, name, file):
    disk, fill = small_disk
    make(tmp_path)
    make(disk)
    assert prepare(tmp_path, name) == 0
    fill()
    capfd.readouterr()
    assert prepare(disk, name, "coco-stuff") == 1
    errors = capfd.readouterr().err
    assert re.search(rf"\[Errno 28\] No space left on device: '{disk}/VOCdevkit/.*{re.escape(file)}'", errors)
    assert errors.endswith("free some space there, then rerun the same command; finished files are kept\n")
    assert "coco-stuff" not in errors, "it would find the disk full, too"
    assert "Traceback" not in errors
    assert "TIFF" not in errors
    (disk / "ballast").unlink()
    assert prepare(disk, name) == 0
    assert files(disk / "VOCdevkit") == files(tmp_path / "VOCdevkit")


def test_missing_root(tmp_path, capsys):
    assert prepare(tmp_path / "nowhere", "all") == 1
    assert f"{tmp_path / 'nowhere'}, does not exist" in capsys.readouterr().err


def test_empty_folders_are_a_missing_archive(tmp_path, capsys):
    for folder in ("images", "annotations"):
        (tmp_path / "ADEChallengeData2016" / folder / "validation").mkdir(parents=True)
    assert prepare(tmp_path, "ade150") == 1
    assert "no image with its label map" in capsys.readouterr().err


def test_one_split_of_two_is_enough(tmp_path, capsys):
    make_coco(tmp_path)
    assert prepare(tmp_path, "coco-stuff") == 0
    output = capsys.readouterr().out
    assert "train2017: not in the archive, nothing to convert\n" in output
    assert "train2017: 0 label maps, the protocol has 118,287 (none of them)" in output
    assert "val2017: 1 written" in output
    assert not (tmp_path / "coco-stuff/annotations_detectron2/train2017").exists(), "no empty folder"
    assert prepare(tmp_path, "coco-stuff", "--check") == 0
    output = capsys.readouterr().out
    assert "train2017: not checked, no converted label maps in " in output
    assert "val2017: 1 of 1 label maps are sound" in output
    assert prepare(tmp_path, "coco-stuff", "--strict") == 1


def test_a_split_of_which_only_converted_files_are_left(tmp_path, capsys):
    make_coco(tmp_path)
    make_coco(tmp_path, split="train2017")
    assert prepare(tmp_path, "coco-stuff") == 0
    shutil.rmtree(tmp_path / "coco-stuff/annotations/train2017")
    capsys.readouterr()
    assert prepare(tmp_path, "coco-stuff") == 0
    output = capsys.readouterr().out
    assert "train2017: not in the archive, nothing to convert; 1 label maps are there already" in output


@pytest.mark.parametrize(
    ("break_it", "complaint"),
    [
        (lambda base: truncate(base / "images/val2017/000000000002.jpg"), "images/val2017/000000000002.jpg: "),
        (lambda base: truncate(base / "annotations/val2017/000000000002.png"), "000000000002.png: "),
        (lambda base: (base / "images/val2017/000000000002.jpg").write_bytes(b""), "000000000002.jpg: "),
        (lambda base: save_label(base / "annotations/val2017/000000000002.png", [[1]]), "1x1 pixels"),
        (lambda base: save_label(base / "annotations/val2017/000000000002.png", [[200] * 80] * 80), "(200)"),
        (lambda base: save_image(base / "annotations/val2017/000000000002.png", (80, 80)), "R+G+B"),
    ],
)
def test_damaged_files_are_named_and_skipped(tmp_path, capsys, break_it, complaint):
    make_coco(tmp_path)
    make_coco(tmp_path, stem="000000000002", label=np.tile(np.arange(80), (80, 1)))
    make_coco(tmp_path, stem="000000000003")
    break_it(tmp_path / "coco-stuff")
    assert prepare(tmp_path, "coco-stuff") == 1
    captured = capsys.readouterr()
    assert "2 written, 0 kept, 1 skipped as damaged" in captured.out
    assert complaint in captured.err
    written = sorted(path.name for path in (tmp_path / "coco-stuff/annotations_detectron2/val2017").glob("[!.]*"))
    assert written == ["000000000001.png", "000000000003.png"]


def test_damaged_mat_is_named(tmp_path, capsys):
    make_context(tmp_path)
    (tmp_path / f"VOCdevkit/VOC2010/trainval/{CONTEXT_ID}.mat").write_bytes(b"not a MATLAB file")
    assert prepare(tmp_path, "pc459") == 1
    assert f"{CONTEXT_ID}.mat: " in capsys.readouterr().err


def test_labels_without_image_are_told(tmp_path, capsys):
    make_coco(tmp_path)
    save_label(tmp_path / "coco-stuff/annotations/val2017/000000000009.png", [[1]])
    assert prepare(tmp_path, "coco-stuff") == 0
    assert "1 label maps without an image left out (the first: 000000000009)" in capsys.readouterr().out
