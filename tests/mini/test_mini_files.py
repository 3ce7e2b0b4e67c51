"""The miniature world on disk: a data set that is drawn on first use; and the command that draws and shows it."""

import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from err_seg.commands.mini import main
from err_seg.data import DatasetError, DatasetSpec, SegmentationPairs, dataset_names, get_dataset, register
from err_seg.mini import files
from err_seg.mini.files import mini_world_name, mini_world_spec
from err_seg.mini.scenes import MiniScenes
from tests.helpers.training import environment, wait_for

OPEN = """
import sys
from err_seg.data import SegmentationPairs, get_dataset
print(len(SegmentationPairs(get_dataset(sys.argv[1]), sys.argv[2])))
"""


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*.*") if path.suffix != ".lock"}


def stamps(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*.png")}


def draw(scenes, root, **options):
    """Draw scenes and return their folder."""
    spec = mini_world_spec(scenes)
    spec.make_available(root, **options)
    return spec.image_folder(root).parent


def test_files_hold_exactly_the_scenes(tmp_path):
    scenes = MiniScenes("val", length=12, size=(64, 96))
    spec = mini_world_spec(scenes)
    pairs = SegmentationPairs(spec, tmp_path)
    assert len(pairs) == 12
    assert spec.name == "mini_world_val_12"
    assert spec.vocabulary == scenes.vocabulary
    for i in range(12):
        assert np.array_equal(pairs[i].image, scenes[i].image)
        assert np.array_equal(pairs[i].label, scenes[i].label)
    (folder,) = (tmp_path / "mini_world").glob("val-*")
    assert tuple(json.loads((folder / "vocabulary.json").read_text())) == scenes.vocabulary
    with Image.open(folder / "labels/00000.png") as label:
        assert label.mode == "L"


def test_it_is_drawn_once(tmp_path, monkeypatch, capfd):
    spec = get_dataset("mini_world_test_6")
    SegmentationPairs(spec, tmp_path)
    assert "drawing mini_world_test_6 to" in capfd.readouterr().err
    before = stamps(tmp_path)
    assert len(before) == 12
    monkeypatch.setattr(files, "FileLock", None)  # nothing is written again, on a disk that may be another's
    assert len(SegmentationPairs(spec, tmp_path)) == 6
    assert stamps(tmp_path) == before
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("damage", ["images/00003.png", "labels/00003.png", "scenes.json"])
def test_what_is_not_complete_is_drawn_anew(tmp_path, damage):
    folder = draw(MiniScenes("train", length=6, size=64), tmp_path)
    before = contents(folder)
    assert len(before) == 14
    (folder / damage).unlink()
    (folder / "images/00001.png").write_bytes(b"damaged")
    assert draw(MiniScenes("train", length=6, size=64), tmp_path, workers=3) == folder
    assert contents(folder) == before


def test_other_settings_are_another_data_set(tmp_path, monkeypatch):
    made = {draw(MiniScenes("test", length=2, size=64), tmp_path)}
    for other in ({"length": 3}, {"size": 65}, {"classes": "seen"}, {"level": "hard"}, {"seed": 1}):
        made.add(draw(MiniScenes("test", **{"length": 2, "size": 64, **other}), tmp_path))
    assert len(made) == 6
    # nor are images of another way of drawing taken for these
    monkeypatch.setattr(files, "DRAWING", files.DRAWING + 1)
    (folder,) = [folder for folder in made if folder.name == "test-2-all-easy-64-64-seed0"]
    before = stamps(folder)
    draw(MiniScenes("test", length=2, size=64), tmp_path)
    assert all(stamps(folder)[path] > before[path] for path in before)


def test_names_say_how_many_scenes():
    assert {"mini_world_train", "mini_world_val", "mini_world_test"} <= set(dataset_names())
    assert get_dataset("mini_world_test").num_images == 320
    assert get_dataset("mini_world_test_320") == get_dataset("mini_world_test")
    assert get_dataset("mini_world_test_24").num_images == 24
    assert (mini_world_name("val", 240), mini_world_name("val", 3)) == ("mini_world_val", "mini_world_val_3")
    for name in ("mini_world_dev", "mini_world_test_0", "mini_world_test_x", "mini_world"):
        with pytest.raises(DatasetError, match=f"unknown data set {name!r}"):
            get_dataset(name)
    for name in ("mini_world_test", "mini_world_test_24"):
        with pytest.raises(DatasetError, match=f"'{name}' is taken"):
            register(DatasetSpec(name, "a", "b", ("red", "blue")))
    with pytest.raises(DatasetError, match="did you mean 'mini_world_test'"):
        get_dataset("mini_world_tset")


def test_an_interrupted_drawing_is_not_taken_for_complete(tmp_path, monkeypatch):
    drawn = MiniScenes.__getitem__

    def broken(scenes, index):
        if index == 3:
            raise RuntimeError("the disk is full")
        return drawn(scenes, index)

    scenes = MiniScenes(length=6, size=64)
    folder = draw(scenes, tmp_path / "whole")
    monkeypatch.setattr(MiniScenes, "__getitem__", broken)
    with pytest.raises(RuntimeError, match="disk is full"):
        draw(scenes, tmp_path / "broken")
    monkeypatch.setattr(MiniScenes, "__getitem__", drawn)
    assert contents(draw(scenes, tmp_path / "broken")) == contents(folder)


def test_killed_while_it_is_drawn_and_drawn_by_two_at_once(tmp_path):
    line = [sys.executable, "-c", OPEN, "mini_world_val", str(tmp_path)]
    process = subprocess.Popen(line, env=environment(), stderr=subprocess.DEVNULL)
    folder = get_dataset("mini_world_val").image_folder(tmp_path).parent
    wait_for(folder / "labels/00005.png", process)
    process.kill()
    process.wait()
    assert not (folder / "scenes.json").exists()
    leaving = folder / "images/.00007.png.1.partial"
    leaving.write_bytes(b"")
    together = [
        subprocess.Popen(line, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    told = [process.communicate(timeout=300) for process in together]
    assert [output for output, _ in told] == ["240\n", "240\n"]
    assert sum("drawing mini_world_val" in errors for _, errors in told) == 1, "one draws, the other waits"
    assert not leaving.exists()
    pairs = SegmentationPairs(get_dataset("mini_world_val"), tmp_path)
    for index in (0, 5, 6, 239):
        assert np.array_equal(pairs[index].image, MiniScenes("val", length=240)[index].image)


# Command


def test_command_writes_what_the_data_set_of_that_name_reads(tmp_path, capsys):
    main(["draw", "--output", str(tmp_path), "--split", "test", "--count", "3"])
    assert "3 scenes of 60 classes are in" in capsys.readouterr().out
    before = stamps(tmp_path)
    assert len(SegmentationPairs(get_dataset("mini_world_test_3"), tmp_path)) == 3
    assert stamps(tmp_path) == before
    main(["draw", "--output", str(tmp_path), "--split", "test", "--count", "3", "--size", "64", "80"])
    assert len(stamps(tmp_path)) == 2 * len(before)


def test_command_draws_sheets(tmp_path):
    main(["draw", "--sheet", str(tmp_path / "sheet.png"), "--count", "2", "--size", "64", "64"])
    for name in ("sheet.png", "sheet_classes.png"):
        with Image.open(tmp_path / name) as sheet:
            assert np.asarray(sheet).std() > 20


@pytest.mark.parametrize(
    ("arguments", "message"),
    [([], "nothing to do"), (["--output", "x", "--count", "0"], "'0' is not a number of at least 1")],
)
def test_command_says_what_is_wrong(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        raise SystemExit(main(["draw", *arguments]))
    assert message in capsys.readouterr().err + str(stopped.value)
    assert not list(tmp_path.iterdir())
