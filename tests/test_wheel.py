"""A wheel that is installed without the checkout has the commands, the configurations and the weights."""

import os
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import yaml
from PIL import Image

from tests.helpers.toy import REPOSITORY

WORDS = "red circle, blue square, yellow brick wall"
QUICK = ["SOLVER.MAX_ITER", "2", "SOLVER.IMS_PER_BATCH", "2", "INPUT.SIZE", "64", "INPUT.CROP_SIZE", "64"]
SCENES = ["DATASETS.TRAIN", "['mini_world_train_4']", "DATASETS.TEST", "['mini_world_test_2']"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Build the wheel from a copy of the files that it is made of, so that the checkout is left as it is."""
    source, folder = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    tracked = subprocess.run(["git", "ls-files"], cwd=REPOSITORY, capture_output=True, text=True)
    if tracked.returncode:
        pytest.skip("not a checkout of git")
    for name in tracked.stdout.splitlines():
        if name.startswith(("err_seg/", "configs/")) or "/" not in name:
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((REPOSITORY / name).read_bytes())
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder)]
    subprocess.run([sys.executable, "-m", "pip", "wheel", *options, str(source)], check=True)
    (file,) = folder.glob("*.whl")
    return file


@pytest.fixture
def run(wheel, tmp_path):
    """Return a function that runs a command of the installed wheel in a folder of its own; gives what it prints."""
    site = tmp_path / "site"
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", site, wheel], check=True
    )
    environment = {**os.environ, "PYTHONPATH": str(site), "ERR_SEG_CACHE": str(tmp_path / "cache")}
    environment["DETECTRON2_DATASETS"] = str(tmp_path / "data")
    where = "import err_seg; print(err_seg.__file__)"
    found = subprocess.run([sys.executable, "-c", where], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert found.stdout.strip() == str(site / "err_seg/__init__.py")

    def call(*arguments):
        command = [sys.executable, "-m", "err_seg", *map(str, arguments)]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return call


def test_it_holds_configurations_weights_and_the_command(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        (entry_points,) = (name for name in names if name.endswith("entry_points.txt"))
        assert "err-seg = err_seg.commands:main" in archive.read(entry_points).decode()
    shipped = {f"err_seg/{path.relative_to(REPOSITORY)}" for path in (REPOSITORY / "configs").rglob("*.yaml")}
    weights = {
        f"err_seg/{path.relative_to(REPOSITORY / 'err_seg')}" for path in REPOSITORY.glob("err_seg/mini/*.safe*")
    }
    assert len(shipped) > 10
    assert weights
    assert shipped | weights <= names


@pytest.mark.slow
def test_it_predicts_trains_sweeps_and_exports(run, tmp_path):
    Image.fromarray(np.full((40, 60, 3), 200, np.uint8)).save(tmp_path / "photo.png")
    assert "all in order" in run("check", "mini")
    assert "1 done" in run("predict", "photo.png", "--classes", WORDS, "--model", "mini", "--output", "labels")
    assert (tmp_path / "labels/photo_overlay.png").is_file()
    own = ["OUTPUT_DIR", "run", "MODEL.DEVICE", "cpu", *QUICK, *SCENES]
    assert "mini_world_test_2" in run("train", "--config-file", "mini/err_seg", "--engine", "plain", *own)
    assert (tmp_path / "run/model_final.safetensors").is_file()
    settings = {key: yaml.safe_load(value) for key, value in zip(own[2::2], own[3::2], strict=True)}
    sweep = {"title": "Toy", "base": str(tmp_path / "run/config.yaml"), "seeds": [0], "settings": settings}
    sweep["variants"] = {"full": {}, "no star": {"settings": {"MODEL.ESCF.STAR": False}}}
    (tmp_path / "toy.yaml").write_text(yaml.safe_dump(sweep, sort_keys=False))
    assert "| no star" in run("sweep", "toy.yaml", "--engine", "plain", "--output", "sweeps")
    assert "the same classes were kept" in run("export", "mini.pt2", "--model", "mini", "--classes", WORDS)
