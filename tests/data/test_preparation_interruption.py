"""Preparation that is killed or interrupted leaves nothing incomplete and goes on where it ended."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from err_seg.commands.prepare import main
from err_seg.utils.files import atomic_write, remove_partial_files
from tests.helpers.toy import REPOSITORY

COMMAND = REPOSITORY / "datasets" / "prepare.py"
LABELS = "VOCdevkit/VOC2012/annotations_detectron2/val"

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="sends POSIX signals")


def make_voc(root, count):
    voc = root / "VOCdevkit/VOC2012"
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (voc / folder).mkdir(parents=True)
    random = np.random.default_rng(0)
    stems = [f"2007_{k:06}" for k in range(count)]
    for stem in stems:
        label = random.integers(0, 21, (200, 300), dtype=np.uint8)
        Image.new("RGB", (300, 200)).save(voc / f"JPEGImages/{stem}.jpg")
        Image.fromarray(label).save(voc / f"SegmentationClass/{stem}.png")
    (voc / "ImageSets/Segmentation/val.txt").write_text("\n".join(stems))


def files(root):
    return {path.name: path.read_bytes() for path in (root / LABELS).iterdir()}


def wait_for_files(root, count, alive):
    folder = root / LABELS
    while alive() and len(list(folder.glob("*.png"))) < count:
        time.sleep(0.001)


def run(root):
    sys.exit(main(["voc20", "--root", str(root), "--workers", "1"]))


def start(root):
    """The command in a copy of this process, which has imported everything already."""
    process = multiprocessing.get_context("fork").Process(target=run, args=(root,))
    process.start()
    return process


def test_killed_at_any_moment_and_run_again_gives_the_same_bytes(tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for root in (whole, killed):
        make_voc(root, 40)
    assert main(["voc20", "--root", str(whole), "--workers", "1"]) == 0
    expected = files(whole)
    for count in (1, 9, 20):
        process = start(killed)
        wait_for_files(killed, count, process.is_alive)
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL, "it was to be killed before its end"
        complete = {name: content for name, content in files(killed).items() if name.endswith(".png")}
        assert len(complete) >= count
        assert complete.items() <= expected.items(), "what has its final name is complete"
    (killed / LABELS / ".2007_000039.png.1234.partial").write_bytes(b"stale")
    assert main(["voc20", "--root", str(killed), "--workers", "1"]) == 0
    assert files(killed) == expected


def test_interrupted_ends_cleanly(tmp_path, capfd):
    make_voc(tmp_path, 1000)  # so many that it cannot end before it is interrupted
    process = start(tmp_path)
    wait_for_files(tmp_path, 3, process.is_alive)
    os.kill(process.pid, signal.SIGINT)
    process.join()
    assert process.exitcode == 130
    error = capfd.readouterr().err
    assert "interrupted; finished files are kept" in error
    assert "Traceback" not in error
    assert not list((tmp_path / LABELS).glob("*.partial"))
    assert 3 <= len(list((tmp_path / LABELS).glob("*.png"))) < 1000


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_the_command_with_worker_processes(tmp_path, how):
    """As above with the real command; Ctrl-C goes to the whole process group, SIGKILL to the parent alone."""
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    for root in (whole, stopped):
        make_voc(root, 600)
    assert main(["voc20", "--root", str(whole), "--workers", "1"]) == 0
    command = [sys.executable, str(COMMAND), "voc20", "--root", str(stopped), "--workers", "2"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    wait_for_files(stopped, 30, lambda: process.poll() is None)
    if how == signal.SIGKILL:
        process.kill()
    else:
        os.killpg(process.pid, how)
    error = process.communicate()[1]  # ends when the last worker has closed the pipe, so none outlives the parent
    assert process.returncode == (-signal.SIGKILL if how == signal.SIGKILL else 130)
    assert "Traceback" not in error
    assert len(list((stopped / LABELS).glob("*.png"))) < 600
    assert subprocess.run(command, capture_output=True).returncode == 0
    assert files(stopped) == files(whole)


def fail_after_writing(path):
    path.write_text("sec")
    raise RuntimeError("stop")


def test_atomic_write_replaces_only_when_all_went_well(tmp_path):
    path = tmp_path / "new" / "result.txt"
    with atomic_write(path) as partial:
        partial.write_text("first")
        assert not path.exists()
        assert partial.parent == path.parent
    with pytest.raises(RuntimeError, match="stop"), atomic_write(path) as partial:
        fail_after_writing(partial)
    assert path.read_text() == "first"
    with pytest.raises(FileNotFoundError), atomic_write(path):
        pass
    assert [entry.name for entry in path.parent.iterdir()] == ["result.txt"]


def test_remove_partial_files_leaves_all_others(tmp_path):
    for name in (".a.png.17.partial", "a.png", ".hidden", "a.partial"):
        (tmp_path / name).touch()
    remove_partial_files(tmp_path)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == [".hidden", "a.partial", "a.png"]
