"""What datasets/README.md says is what the code does."""

import re
import shlex
import shutil
import subprocess

import pytest
import yaml

from err_seg.commands import train
from err_seg.commands.prepare import main
from err_seg.config import get_cfg
from err_seg.data import SegmentationPairs, get_dataset, register, spec_from_dict
from err_seg.data.catalog import published
from tests.helpers.annotations import (
    coco_content,
    make_images,
    scene,
    write_json,
    write_labelme,
    write_panoptic,
    write_yolo,
)
from tests.helpers.preparation import MAKERS, make_coco
from tests.helpers.toy import REPOSITORY, TOY

TEXT = (REPOSITORY / "datasets" / "README.md").read_text(encoding="utf-8")


BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE)


def block(language, word):
    """The block of that language that holds the word."""
    (found,) = [code for kind, code in BLOCKS if kind == language and word in code]
    return found


def test_the_table_of_names_is_the_catalog():
    rows = re.findall(r"^\| (?:`([a-z0-9-]+)` )?\| `([a-z0-9_]+)` \|(.*)\|$", TEXT, re.MULTILINE)
    table = {name: (command, *(cell.strip() for cell in rest.split("|"))) for command, name, rest in rows}
    assert sorted(table) == sorted(spec.name for spec in published())
    for spec in published():
        command, images, classes, files, ignore, kept = table[spec.name]
        assert command == (spec.preparation or "")
        assert images == f"{spec.num_images:,}"
        assert classes == str(spec.num_foreground or len(spec.vocabulary)) + " + background" * bool(spec.num_foreground)
        assert spec.label_ext in files
        assert ignore == str(spec.ignore_label)
        assert kept == str(spec.num_kept or "")
    aliases = re.findall(r"`(\S+_sem_seg\w*)`", TEXT)
    assert [get_dataset(alias).name for alias in aliases] == [name for name in table if get_dataset(name).aliases]


def test_the_configuration_entry_and_the_call_declare_the_same(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "streets").mkdir()
    (tmp_path / "streets/classes.txt").write_text("road\nbuilding, house\nsky\n")
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    (tmp_path / "own.yaml").write_text(re.search(r"^```yaml\n(_BASE_.*?)^```$", readme, re.DOTALL | re.MULTILINE)[1])
    cfg = get_cfg("own.yaml")
    exec(block("python", "register"))
    (name,) = cfg.DATASETS.TEST
    (declared,) = cfg.DATASETS.CUSTOM
    assert register(spec_from_dict(declared)) == get_dataset(name)
    assert get_dataset(name).vocabulary == ("road", "building, house", "sky")


def test_the_names_in_the_short_configuration_are_registered():
    for name in yaml.safe_load(block("yaml", "TEST: [pascal"))["DATASETS"]["TEST"]:
        assert get_dataset(name).name == name


def pack(archive, folder, *, top):
    """An archive of a folder, under the name ``top`` or, with None, of its contents."""
    name, _, kind = archive.name.partition(".")
    kind = {"tar.gz": "gztar"}.get(kind, kind)
    shutil.make_archive(str(archive.with_name(name)), kind, folder, top)


@pytest.mark.skipif(not (shutil.which("unzip") and shutil.which("tar")), reason="needs unzip and tar")
def test_unpacked_as_shown_all_is_prepared(tmp_path, monkeypatch, capsys):
    """The archives are small, and laid out like the real ones."""
    raw, root = tmp_path / "raw", tmp_path / "root"
    root.mkdir()
    for name in ("ade150", "ade847", "pc459", "voc20"):
        MAKERS[name](raw)
    for split in ("train2017", "val2017"):
        make_coco(raw, split=split)
        pack(root / f"{split}.zip", raw / "coco-stuff/images", top=split)
    pack(root / "stuffthingmaps_trainval2017.zip", raw / "coco-stuff/annotations", top=None)
    pack(root / "ADE20K_2021_17_01.zip", raw, top="ADE20K_2021_17_01")
    pack(root / "ADEChallengeData2016.zip", raw, top="ADEChallengeData2016")
    pack(root / "trainval.tar.gz", raw / "VOCdevkit/VOC2010", top="trainval")
    shutil.rmtree(raw / "VOCdevkit/VOC2010/trainval")
    pack(root / "VOCtrainval_03-May-2010.tar", raw, top="VOCdevkit/VOC2010")
    pack(root / "VOCtrainval_11-May-2012.tar", raw, top="VOCdevkit/VOC2012")
    monkeypatch.setenv("DETECTRON2_DATASETS", str(root))
    subprocess.run(["bash", "-euc", block("bash", "unzip")], check=True, capture_output=True)
    arguments = ["all", "--workers", "1"]
    assert main(arguments) == 0
    assert "not in the archive" not in capsys.readouterr().out
    assert main([*arguments, "--check"]) == 0
    tree = block("", "→ annotations_detectron2/pc459_val")
    for spec in (spec for spec in published() if spec.preparation):
        assert len(SegmentationPairs(spec)) == 1
        assert spec.label_dir.rpartition("/")[2] in tree


def test_own_annotations_are_prepared_as_shown(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    label = {"a.jpg": scene()}
    for folder in ("streets", "val2017", "parts/images/train"):
        make_images(tmp_path / folder, label)
    write_labelme(tmp_path / "streets", "a.jpg", label["a.jpg"])
    write_json(tmp_path / "instances_val2017.json", coco_content(label))
    write_panoptic(tmp_path / "panoptic_val2017.json", label)
    write_yolo(tmp_path / "parts/labels/train/a.txt", label["a.jpg"])
    (tmp_path / "parts/data.yaml").write_text("names: [sky, road, car, tree]")
    *conversions, training = block("bash", "prepare from").splitlines()
    for command in conversions:
        program, name, *arguments = shlex.split(command)
        assert (program, name) == ("err-seg", "prepare")
        assert main([*arguments, "--workers", "1"]) == 0
        entry = get_cfg(f"{arguments[-1]}/dataset.yaml").DATASETS.CUSTOM[0]
        assert len(SegmentationPairs(spec_from_dict(entry))) == 1
    (tmp_path / "own.yaml").write_text(block("yaml", "prepared/streets"))
    cfg = get_cfg("own.yaml")
    assert (cfg.DATASETS.TRAIN, cfg.SOLVER.CLIP_MULTIPLIER) == (["streets"], 0.1)
    program, name, *arguments = shlex.split(training)
    assert (program, name) == ("err-seg", "train")
    toy = map(str, [*TOY, "SOLVER.MAX_ITER", 1, "SOLVER.IMS_PER_BATCH", 1, "OUTPUT_DIR", tmp_path / "output"])
    assert train.main([*arguments, *toy]) == 0
    assert (tmp_path / "output/model_final.safetensors").exists()
