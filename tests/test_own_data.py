"""docs/own_data.md works as printed, on photographs where they are present, else on drawn ones."""

import re
import shlex
import shutil

import numpy as np
import pytest
import yaml
from PIL import Image

import err_seg
from err_seg.commands import main
from err_seg.data import get_dataset, register_entries, spec_from_dict
from tests.helpers.documents import blocks, check_command, check_files, check_keys, check_links
from tests.helpers.toy import REPOSITORY, SHARED

PAGE = (REPOSITORY / "docs/own_data.md").read_text(encoding="utf-8")
CONFIG, LABELS, SEEN = blocks(PAGE, "yaml")
(CLIP,) = blocks(PAGE, "json")
FIRST_LOOK, TRAINING, PREPARING = (block.splitlines() for block in blocks(PAGE, "bash"))
CAMVID = SHARED / "camvid"
COUNTS = {"train": 12, "val": 5, "test": 5}


@pytest.fixture
def streets(tmp_path, monkeypatch):
    """Lay out the files of the page, and work in the folder above."""
    folder = tmp_path / "streets"
    folder.mkdir()
    (folder / "streets.yaml").write_text(CONFIG)
    (folder / "small_clip.json").write_text(CLIP)
    random = np.random.default_rng(0)
    for split, count in COUNTS.items():
        images, labels = (folder / kind / split for kind in ("images", "labels"))
        images.mkdir(parents=True)
        labels.mkdir(parents=True)
        if CAMVID.is_dir():
            for file in sorted((CAMVID / split.replace("test", "val")).glob("*.jpg"))[:: 100 // count][:count]:
                shutil.copy(file, images)
                shutil.copy(file.parent.with_name(f"{file.parent.name}annot") / f"{file.stem}.png", labels)
            continue
        for number in range(count):
            label = random.integers(0, 12, (6, 8)).repeat(60, 0).repeat(60, 1).astype(np.uint8)
            pixels = np.stack([label * 20, 255 - label * 20, label * 9], axis=2) + random.integers(0, 9, (360, 480, 3))
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(images / f"{split}_{number}.jpg")
            Image.fromarray(label).save(labels / f"{split}_{number}.png")
    monkeypatch.chdir(tmp_path)
    return folder


def run(line):
    """Run a command as printed, in this process."""
    words = shlex.split(line)
    assert words[0] == "err-seg"
    assert main(words[1:]) == 0, line


def test_a_first_look_runs_as_printed(streets, tmp_path, capsys):
    (line,) = FIRST_LOOK
    run(line)
    output = capsys.readouterr().out
    assert "| streets_test" in output
    assert "mean nothing" not in output
    named = re.search(r"`(output/first_look/vis/\S+\.png)`", PAGE)[1]
    with Image.open(tmp_path / named) as image:
        assert image.width >= 3 * 128
    assert not (tmp_path / "output/first_look/evaluations/iter_0000008/inference/streets_test").exists()
    assert (tmp_path / "output/first_look/evaluations/iter_0000008/inference/streets_val/classes.csv").is_file()


@pytest.mark.slow
def test_training_evaluation_and_prediction_run_as_printed(streets, tmp_path):
    for line in TRAINING:
        run(line)
    assert len(list((tmp_path / "output/streets_labelled").rglob("*.png"))) >= COUNTS["test"]


def test_labels_as_they_come_are_declared_as_printed(tmp_path, monkeypatch):
    (tmp_path / "labels.yaml").write_text(LABELS)
    (tmp_path / "classes.txt").write_text("road\nsky\n")
    for text in (LABELS, SEEN):
        (tmp_path / "labels.yaml").write_text(text)
        entries = err_seg.get_cfg(tmp_path / "labels.yaml").DATASETS.CUSTOM
        assert [spec_from_dict(entry).name for entry in entries] == [
            entry["name"] for entry in yaml.safe_load(text)["DATASETS"]["CUSTOM"]
        ]
    register_entries(entries)
    training = get_dataset("half_of_the_streets").for_training(True)
    assert len(training.vocabulary) == 9
    sides = [get_dataset(name).seen_and_unseen for name in ("half_of_the_streets", "all_of_the_streets")]
    assert sides[0] == sides[1]


def test_commands_keys_files_and_links_of_the_page_exist():
    for line in [*FIRST_LOOK, *TRAINING, *PREPARING]:
        check_command(line)
    check_keys(PAGE)
    check_files(PAGE)
    check_links(PAGE, REPOSITORY / "docs")
