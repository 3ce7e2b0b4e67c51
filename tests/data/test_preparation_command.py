"""The preparation command on small archives, whole and broken."""

import json

import numpy as np
import pytest
from filelock import FileLock
from PIL import Image
from pycocotools import mask as run_length_masks
from scipy.io import savemat

from err_seg.commands.prepare import main
from err_seg.data import SegmentationPairs, get_dataset
from err_seg.data.preparation import parallel

CONTEXT_ID = "2008_000002"


def save_image(path, size, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width = size
    noise = np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path, **options)


def save_label(path, label, palette=False):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(np.asarray(label, dtype=np.uint8))
    if palette:
        image = image.copy()
        image.putpalette([value for k in range(256) for value in (255 - k, k, (7 * k) % 256)])
    image.save(path)


def make_coco(root, split="val2017", stem="000000000001", label=((0, 10, 255), (11, 181, 12))):
    save_image(root / f"coco-stuff/images/{split}/{stem}.jpg", np.shape(label))
    save_label(root / f"coco-stuff/annotations/{split}/{stem}.png", label)


def make_ade150(root):
    save_image(root / "ADEChallengeData2016/images/validation/ADE_val_1.jpg", (2, 3))
    save_label(root / "ADEChallengeData2016/annotations/validation/ADE_val_1.png", [[0, 1, 2], [149, 150, 0]])


def make_ade847(root, size=(600, 900), stem="ADE_val_1", **options):
    folder = root / "ADE20K_2021_17_01/images/ADE/validation/urban/street"
    save_image(folder / f"{stem}.jpg", size, **options)
    colours = np.zeros((*size, 3), np.uint8)
    colours[:, : size[1] // 2] = (110, 162, 9)  # wall, 0
    Image.fromarray(colours).save(folder / f"{stem}_seg.png")


def make_context(root, mat=True, merged=False):
    folder = root / "VOCdevkit/VOC2010"
    save_image(folder / f"JPEGImages/{CONTEXT_ID}.jpg", (2, 3))
    label = np.array([[0, 2, 9], [431, 459, 458]], dtype=np.uint16)
    if mat:
        (folder / "trainval").mkdir()
        savemat(folder / f"trainval/{CONTEXT_ID}.mat", {"LabelMap": label})
    if merged:
        masks = [(2, np.ones((2, 3), bool)), (9, np.array([[0, 0, 1], [0, 0, 0]]))]  # the later one overwrites
        entries = [{"image_id": 2008000002, "category_id": k, "segmentation": run_length(mask)} for k, mask in masks]
        image = {"image_id": 2008000002, "file_name": f"{CONTEXT_ID}.jpg"}
        content = {"images": [image], "annos_segmentation": entries}
        (folder / "trainval_merged.json").write_text(json.dumps(content))


def run_length(mask):
    encoded = run_length_masks.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": encoded["size"], "counts": encoded["counts"].decode()}


def make_voc(root, labels=None, folder="SegmentationClass"):
    labels = labels or {"2007_000001": [[0, 1, 20], [255, 255, 0]]}
    voc = root / "VOCdevkit/VOC2012"
    for stem, label in labels.items():
        save_image(voc / f"JPEGImages/{stem}.jpg", np.shape(label))
        save_label(voc / folder / f"{stem}.png", label, palette=True)
    (voc / "ImageSets/Segmentation").mkdir(parents=True, exist_ok=True)
    (voc / "ImageSets/Segmentation/val.txt").write_text("\n".join(labels) + "\n")


MAKERS = {
    "coco-stuff": make_coco,
    "ade150": make_ade150,
    "ade847": make_ade847,
    "pc59": make_context,
    "pc459": make_context,
    "voc20": make_voc,
    "voc20b": make_voc,
}


def prepare(root, *arguments):
    return main([*arguments, "--root", str(root), "--workers", "1"])


def truncate(path):
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def read(path):
    return np.asarray(Image.open(path)).tolist()


def files(root):
    """Bytes of every visible file."""
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in root.rglob("[!.]*") if p.is_file()}


CONVERTED = {
    "coco-stuff": ("coco-stuff/annotations_detectron2/val2017/000000000001.png", [[0, 10, 255], [255, 170, 11]]),
    "ade150": ("ADEChallengeData2016/annotations_detectron2/validation/ADE_val_1.png", [[255, 0, 1], [148, 149, 255]]),
    "pc59": (f"VOCdevkit/VOC2010/annotations_detectron2/pc59_val/{CONTEXT_ID}.png", [[255, 0, 1], [255, 255, 58]]),
    "pc459": (
        f"VOCdevkit/VOC2010/annotations_detectron2/pc459_val/{CONTEXT_ID}.tif",
        [[65535, 1, 8], [430, 458, 457]],
    ),
    "voc20": ("VOCdevkit/VOC2012/annotations_detectron2/val/2007_000001.png", [[255, 0, 19], [255, 255, 255]]),
    "voc20b": ("VOCdevkit/VOC2012/annotations_detectron2_bg/val/2007_000001.png", [[20, 0, 19], [255, 255, 20]]),
}


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
    monkeypatch.setattr(parallel, "_start_method", lambda: "fork")  # starts faster than what the command uses
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
