"""Paths that begin with "~": the home folder, wherever they come from."""

import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import err_seg
from err_seg.commands import predict
from err_seg.jobs import collect_sources, open_output
from err_seg.utils.files import cache_dir, write_json
from tests.helpers.predicting import files, save
from tests.helpers.toy import REPOSITORY


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A home folder, and another working folder, in which a folder "~" would show."""
    (tmp_path / "home").mkdir()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "elsewhere")
    yield tmp_path / "home"
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_the_configuration_s_paths(home, tmp_path):
    (home / "own.yaml").write_text("OUTPUT_DIR: ~/runs/a\nMODEL:\n  TEXT:\n    CACHE_DIR: ~/cache\n")
    cfg = err_seg.get_cfg("~/own.yaml", ["MODEL.WEIGHTS", "~/w.safetensors", "MODEL.CLIP.PRETRAINED", "~/clip.pt"])
    assert f"{home}/runs/a" == cfg.OUTPUT_DIR
    assert f"{home}/cache" == cfg.MODEL.TEXT.CACHE_DIR
    assert (f"{home}/w.safetensors", f"{home}/clip.pt") == (cfg.MODEL.WEIGHTS, cfg.MODEL.CLIP.PRETRAINED)
    cfg.OUTPUT_DIR = "~/runs/b"
    assert f"{home}/runs/b" == cfg.OUTPUT_DIR


def test_caches_and_files(home, monkeypatch):
    monkeypatch.setenv("ERR_SEG_CACHE", "~/kept")
    assert cache_dir() == home / "kept"
    write_json("~/deep/a.json", [1])
    assert json.loads((home / "deep/a.json").read_text()) == [1]
    with open_output("~/out", {}) as manifest:
        assert manifest.folder == home / "out"


def test_a_name_that_only_begins_so(home, tmp_path, monkeypatch):
    """No user is called like this, so it is a file's name, and no error."""
    (tmp_path / "odd").mkdir()
    monkeypatch.chdir(tmp_path / "odd")
    Image.new("RGB", (3, 3)).save("~nobody's cat.png")
    sources, problems = collect_sources(["~nobody's cat.png"])
    assert (len(sources), problems) == (1, [])
    write_json("~nobody's cat.json", [1])
    assert (tmp_path / "odd/~nobody's cat.json").is_file()
    monkeypatch.chdir(tmp_path / "elsewhere")


@pytest.mark.parametrize("output", [["--output", "~/results"], ["--output=~/results"]])
def test_predict(home, run_predict, tmp_path, monkeypatch, output):
    """A shell expands neither what is quoted nor "--output=~/results"; ``run_predict`` provides the network."""
    save(home / "a.png")
    (home / "words.txt").write_text("cat\ndog\n")
    argv = ["~/a.png", "--classes-file=~/words.txt", *output, "--format", "labels"]
    assert predict.main(argv) == 0
    assert files(home / "results") == ["a_labels.png"]


def test_python(home, toy):
    save(home / "a.png")
    out = toy.predict("~/a.png", ["cat", "dog"])
    out.save("~/results/a.png", "labels")
    assert np.asarray(Image.open(home / "results/a.png")).shape == out.size


def test_options_of_every_command(home):
    script = "from err_seg.commands.options import command_parser as p; q = p('x', None); q.add_argument('--a')\n"
    script += "q.add_argument('rest', nargs='*'); f = q.parse_args(); print(f.a, *f.rest)"
    given = ["--a=~/b", "~/c", "~", "d~", "~nobody's", "e=~/f"]
    command = [sys.executable, "-c", script, *given]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout.split(" ", 3) == [f"{home}/b", f"{home}/c", f"{home}", "d~ ~nobody's e=~/f\n"]
