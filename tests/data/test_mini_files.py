"""The miniature world on disk, and the command that writes and shows it."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from err_seg.data import SegmentationPairs
from err_seg.data.mini_world import MiniScenes, write_to_disk

ROOT = Path(__file__).resolve().parents[2]


def test_files_hold_exactly_the_scenes(tmp_path):
    scenes = MiniScenes("val", length=12, size=(64, 96))
    spec = write_to_disk(tmp_path / "world", scenes, workers=2)
    pairs = SegmentationPairs(spec)
    assert len(pairs) == 12
    assert spec.name == "mini_world_val"
    assert spec.vocabulary == scenes.vocabulary
    for i in range(12):
        assert np.array_equal(pairs[i].image, scenes[i].image)
        assert np.array_equal(pairs[i].label, scenes[i].label)
    assert tuple(json.loads((tmp_path / "world/vocabulary.json").read_text())) == scenes.vocabulary
    with Image.open(tmp_path / "world/labels/00000.png") as label:
        assert label.mode == "L"


def test_writing_again_leaves_the_same_files(tmp_path):
    def contents():
        return {path.relative_to(tmp_path): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}

    scenes = MiniScenes("train", length=6, size=64)
    write_to_disk(tmp_path, scenes)
    before = contents()
    (tmp_path / "labels/00003.png").write_bytes(b"damaged")
    write_to_disk(tmp_path, scenes, workers=3)
    assert contents() == before
    assert len(before) == 13


def test_foreign_files_are_not_mixed_with(tmp_path):
    write_to_disk(tmp_path, MiniScenes("train", length=6, size=64))
    with pytest.raises(FileExistsError, match=r"2 files that are not among the 5 scenes .* such as images/00005\.png"):
        write_to_disk(tmp_path, MiniScenes("train", length=5, size=64))
    assert (tmp_path / "vocabulary.json").exists()


def test_an_interrupted_write_is_not_taken_for_complete(tmp_path):
    class Broken(MiniScenes):
        def __getitem__(self, index):
            if index == 3:
                raise RuntimeError("the disk is full")
            return super().__getitem__(index)

    write_to_disk(tmp_path, MiniScenes(length=6, size=64))
    with pytest.raises(RuntimeError, match="disk is full"):
        write_to_disk(tmp_path, Broken(length=6, size=64))
    assert not (tmp_path / "vocabulary.json").exists()


# Command


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("render_mini_world", ROOT / "tools/render_mini_world.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_command_writes_a_split(tool, tmp_path, capsys):
    tool.main(["--output", str(tmp_path), "--split", "test", "--count", "3", "--size", "64", "80"])
    assert sorted(path.name for path in (tmp_path / "test/images").iterdir()) == ["00000.png", "00001.png", "00002.png"]
    assert "wrote 3 scenes of 60 classes" in capsys.readouterr().out


def test_command_draws_sheets(tool, tmp_path):
    tool.main(["--sheet", str(tmp_path / "sheet.png"), "--count", "2", "--size", "64", "64"])
    for name in ("sheet.png", "sheet_classes.png"):
        with Image.open(tmp_path / name) as sheet:
            assert np.asarray(sheet).std() > 20


@pytest.mark.parametrize(
    ("arguments", "message"),
    [([], "nothing to do"), (["--output", "x", "--count", "0"], "length must be 1 or more")],
)
def test_command_says_what_is_wrong(tool, tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        tool.main(arguments)
    assert message in capsys.readouterr().err + str(stopped.value)
    assert not list(tmp_path.iterdir())
