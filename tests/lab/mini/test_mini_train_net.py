"""tools/train_net.py on the miniature world in an empty folder, with either engine."""

import subprocess
import sys

import pytest

from tests.helpers.toy import REPOSITORY
from tests.helpers.training import environment

FEW = ("DATASETS.TRAIN", "['mini_world_train_8']", "DATASETS.TEST", "['mini_world_test_4']")
SMALL = ("INPUT.SIZE", "64", "INPUT.CROP_SIZE", "64", "INPUT.MIN_SIZE_TRAIN", "[64]", "SOLVER.IMS_PER_BATCH", "2")


def train_net(folder, engine, *overrides):
    """Run the command for two iterations in a folder; return what it told."""
    line = [
        sys.executable,
        str(REPOSITORY / "tools/train_net.py"),
        "--config-file",
        str(REPOSITORY / "configs/mini/err_seg.yaml"),
    ]
    line += ["--engine", engine, "SOLVER.MAX_ITER", "2", "MODEL.DEVICE", "cpu", *overrides]
    own = {name: value for name, value in environment().items() if name != "DETECTRON2_DATASETS"}
    done = subprocess.run(line, cwd=folder, env=own, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout + done.stderr


@pytest.mark.parametrize("engine", ["plain", pytest.param("detectron2", marks=pytest.mark.d2)])
def test_it_is_a_data_set_like_any_other(tmp_path, engine):
    if engine == "detectron2":
        pytest.importorskip("detectron2", reason="detectron2 is not installed")
    told = train_net(tmp_path, engine, *FEW, *SMALL)
    assert "drawing mini_world_train_8 to" in told
    assert "| mini_world_test_4 |" in told
    images = {path: path.stat().st_mtime_ns for path in (tmp_path / "datasets").rglob("*.png")}
    assert len(images) == 2 * (8 + 4)
    # another number of scenes is another data set; those that are drawn stay
    told = train_net(tmp_path, engine, *FEW, *SMALL, FEW[0], "['mini_world_train_9']")
    assert "drawing mini_world_train_9 to" in told
    assert "drawing mini_world_test_4 to" not in told
    assert images == {path: path.stat().st_mtime_ns for path in images}


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["plain", pytest.param("detectron2", marks=pytest.mark.d2)])
def test_the_plainest_command(tmp_path, engine):
    if engine == "detectron2":
        pytest.importorskip("detectron2", reason="detectron2 is not installed")
    told = train_net(tmp_path, engine)
    assert "drawing mini_world_train to" in told
    assert "| mini_world_test |" in told
    assert len(list((tmp_path / "datasets").rglob("*.png"))) == 2 * (2400 + 320)
