"""The preparation command on small archives, whole and broken."""

import numpy as np
import pytest
from filelock import FileLock
from PIL import Image

from err_seg.commands.prepare import main
from err_seg.data import SegmentationPairs, get_dataset
from err_seg.data.preparation import parallel
from tests.helpers.preparation import (
    CONVERTED,
    MAKERS,
    files,
    make_ade847,
    make_context,
    make_voc,
    prepare,
    read,
    save_label,
    truncate,
)


@pytest.mark.parametrize("name", CONVERTED)
def test_converts_to_the_released_names(tmp_path, name):
    MAKERS[name](tmp_path)
    assert prepare(tmp_path, name) == 0
    path, label = CONVERTED[name]
    assert read(tmp_path / path) == label


def test_ade847_is_shrunk_and_keeps_16_bits(tmp_path):
    make_ade847(tmp_path)
    assert prepare(tmp_path, "ade847") == 0
    base = tmp_path / "ADE20K_2021_17_01"
    label = Image.open(base / "annotations_detectron2/validation/ADE_val_1.tif")
    assert label.size == Image.open(base / "images_detectron2/validation/ADE_val_1.jpg").size == (768, 512)
    values = np.asarray(label)
    assert values.dtype == np.uint16
    assert (values[:, :384] == 0).all()
    assert (values[:, 384:] == 65535).all()


def test_ade847_small_images_are_copied(tmp_path):
    make_ade847(tmp_path, size=(512, 700))
    raw = tmp_path / "ADE20K_2021_17_01/images/ADE/validation/urban/street/ADE_val_1.jpg"
    assert prepare(tmp_path, "ade847") == 0
    copy = tmp_path / "ADE20K_2021_17_01/images_detectron2/validation/ADE_val_1.jpg"
    assert copy.read_bytes() == raw.read_bytes()


def test_ade847_images_stay_as_the_label_was_drawn(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # readers would turn it upright
    make_ade847(tmp_path, size=(40, 60), exif=exif)
    assert prepare(tmp_path, "ade847") == 0
    assert prepare(tmp_path, "ade847", "--check") == 0


@pytest.mark.parametrize("dataset", ["pascal_voc_20b_val", "ade20k_847_val"])
def test_converted_files_are_found_by_the_catalog(tmp_path, dataset):
    make_voc(tmp_path)
    make_ade847(tmp_path)
    assert prepare(tmp_path, "voc20b", "ade847") == 0
    assert len(SegmentationPairs(get_dataset(dataset), root=tmp_path)) == 1


def test_pc59_prefers_the_json_and_needs_no_mat(tmp_path, capsys):
    make_context(tmp_path, mat=False, merged=True)
    assert prepare(tmp_path, "pc59") == 0
    assert read(tmp_path / CONVERTED["pc59"][0]) == [[0, 0, 1], [0, 0, 0]]
    assert "1 of trainval_merged.json, 0 of" in capsys.readouterr().out


def test_pc59_takes_the_mat_where_the_json_lacks_the_image(tmp_path, capsys):
    make_context(tmp_path, mat=True)
    merged = tmp_path / "VOCdevkit/VOC2010/trainval_merged.json"
    merged.write_text('{"images": [], "annos_segmentation": []}')
    assert prepare(tmp_path, "pc59") == 0
    assert read(tmp_path / CONVERTED["pc59"][0]) == CONVERTED["pc59"][1]
    assert "0 of trainval_merged.json, 1 of" in capsys.readouterr().out


def test_voc_prefers_the_augmented_labels_and_leaves_out_empty_ones(tmp_path, capsys):
    make_voc(tmp_path, {"2007_000001": [[1, 1]], "2007_000002": [[0, 255]]})
    save_label(tmp_path / "VOCdevkit/VOC2012/SegmentationClassAug/2007_000001.png", [[2, 0]])
    assert prepare(tmp_path, "voc20") == 0
    folder = tmp_path / "VOCdevkit/VOC2012/annotations_detectron2/val"
    assert read(folder / "2007_000001.png") == [[1, 255]]
    assert not (folder / "2007_000002.png").exists()
    assert "1 left out (no class in them; the first: 2007_000002)" in capsys.readouterr().out


def test_second_run_keeps_files_and_force_writes_them_again(tmp_path, capsys):
    make_voc(tmp_path)
    assert prepare(tmp_path, "voc20") == 0
    path = tmp_path / CONVERTED["voc20"][0]
    right = path.read_bytes()
    path.write_bytes(b"mine")
    assert prepare(tmp_path, "voc20") == 0
    assert path.read_bytes() == b"mine"
    assert "0 written, 1 kept" in capsys.readouterr().out
    assert prepare(tmp_path, "voc20", "--force") == 0
    assert path.read_bytes() == right


def test_force_removes_what_is_left_out_now(tmp_path):
    make_voc(tmp_path)
    assert prepare(tmp_path, "voc20") == 0
    make_voc(tmp_path, {"2007_000001": [[0, 255]]})
    assert prepare(tmp_path, "voc20", "--force") == 0
    assert not (tmp_path / CONVERTED["voc20"][0]).exists()


def test_a_lost_image_of_ade847_is_made_again(tmp_path):
    make_ade847(tmp_path)
    assert prepare(tmp_path, "ade847") == 0
    before = files(tmp_path)
    (tmp_path / "ADE20K_2021_17_01/images_detectron2/validation/ADE_val_1.jpg").unlink()
    assert prepare(tmp_path, "ade847") == 0
    assert files(tmp_path) == before


def test_a_subset_is_a_warning_or_with_strict_an_error(tmp_path, capsys):
    make_voc(tmp_path)
    message = "voc20 val: 1 label maps, the protocol has 1,449"
    assert prepare(tmp_path, "voc20") == 0
    assert f"warning: {message}" in capsys.readouterr().out
    assert prepare(tmp_path, "voc20", "--strict") == 1
    assert message in capsys.readouterr().err
    assert prepare(tmp_path, "voc20", "--strict", "--check") == 1


def test_two_runs_at_once_are_refused(tmp_path, capsys):
    make_voc(tmp_path)
    folder = tmp_path / "VOCdevkit/VOC2012/annotations_detectron2/val"
    folder.mkdir(parents=True)
    with FileLock(folder / ".prepare.lock"):
        assert prepare(tmp_path, "voc20") == 1
    assert "another run is preparing" in capsys.readouterr().err
    assert prepare(tmp_path, "voc20") == 0


def test_a_pool_of_processes_gives_the_same_files(tmp_path, monkeypatch):
    monkeypatch.setattr(parallel, "_WORTH_A_PROCESS", 2)
    monkeypatch.setattr(parallel, "start_method", lambda: "fork")  # starts faster than what the command uses
    labels = {f"2007_{k:06}": [[k % 20 + 1, 0]] for k in range(40)}
    for root, workers in ((tmp_path / "one", "1"), (tmp_path / "three", "3")):
        make_voc(root, labels)
        truncate(root / "VOCdevkit/VOC2012/JPEGImages/2007_000007.jpg")
        assert main(["voc20", "--root", str(root), "--workers", workers]) == 1
    assert files(tmp_path / "one") == files(tmp_path / "three")
    assert len(list((tmp_path / "three/VOCdevkit/VOC2012/annotations_detectron2/val").glob("*.png"))) == 39


def test_usage_errors(tmp_path):
    for arguments in (["cityscapes"], [], ["voc20", "--workers", "0"]):
        with pytest.raises(SystemExit) as stopped:
            main([*arguments, "--root", str(tmp_path)])
        assert stopped.value.code == 2
