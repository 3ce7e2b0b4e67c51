"""Files of a whole job: which images they hold, and what keeps one of them from being written."""

import json
import re

import numpy as np
import pytest

from err_seg.commands import prediction_job
from err_seg.jobs import job_outputs, video
from tests.helpers.predicting import save


def listed(folder):
    """Return the images of the COCO data set, which are those of the page."""
    coco = json.loads((folder / "_annotations.coco.json").read_text())
    page = (folder / "index.html").read_text(encoding="utf-8")
    data = json.loads(re.search(r'id="data">(.*?)</script>', page, re.DOTALL).group(1))
    names = [image["file_name"] for image in coco["images"]]
    assert names == [entry["source"] for entry in data["images"]]
    assert {annotation["image_id"] for annotation in coco["annotations"]} <= set(range(1, len(names) + 1))
    return names


def clip(path, count=7, rate=12.0):
    path.parent.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    video.write_video(random.integers(0, 256, (count, 40, 60, 3), dtype=np.uint8), path, rate)
    return path


def test_every_image_of_the_command_once_and_no_other(run_predict, tmp_path):
    """Images get longer names when others of the same name join them, and images are removed or become unreadable."""
    first, second, third = (save(tmp_path / f"in/{name}.png", seed=len(name)) for name in ("a/cat", "bb/cat", "bb/x"))
    asked = ("--format", "coco,html")
    assert run_predict(first, *asked)[0] == 0
    assert run_predict(first, second, *asked)[0] == 0
    assert listed(tmp_path / "out") == [str(first), str(second)]
    assert run_predict(tmp_path / "in", *asked)[0] == 0
    assert listed(tmp_path / "out") == [str(first), str(second), str(third)]
    third.unlink()
    second.write_text("no image")
    assert run_predict(tmp_path / "in", *asked)[0] == 1
    assert listed(tmp_path / "out") == [str(first)]


def test_images_are_called_as_in_the_last_command(run_predict, tmp_path, monkeypatch):
    """Their results may be of a time when they were elsewhere, or the command was started elsewhere."""
    for name in "ab":
        save(tmp_path / f"before/{name}.png", seed=ord(name))
    assert run_predict(tmp_path / "before", "--format", "coco,html")[0] == 0
    (tmp_path / "before").rename(tmp_path / "after")
    save(tmp_path / "after/c.png")
    monkeypatch.chdir(tmp_path)
    _, out, _ = run_predict("after", "--format", "coco,html")
    assert "1 done, 2 were done before" in out
    assert listed(tmp_path / "out") == ["after/a.png", "after/b.png", "after/c.png"]


def test_the_parts_of_images_that_are_gone_are_not_needed(run_predict, tmp_path):
    for name in "ab":
        save(tmp_path / f"in/{name}.png")
    assert run_predict(tmp_path / "in", "--format", "coco")[0] == 0
    (tmp_path / "in/a.png").unlink()
    (tmp_path / "out/a_coco.json").unlink()
    assert run_predict(tmp_path / "in", "--format", "coco")[0] == 0


def test_images_are_no_video(run_predict, tmp_path):
    clip(tmp_path / "clip.mp4", count=1)
    for inputs, told in (([save(tmp_path / "a.png")], True), ([tmp_path / "a.png", tmp_path / "clip.mp4"], False)):
        status, out, _ = run_predict(*inputs, "--format", "video")
        assert (status, "no videos among the inputs" in out) == (0, told)


def test_a_video_has_the_frames_that_were_asked_for(run_predict, tmp_path):
    source = clip(tmp_path / "clip.mp4")
    for every, count in ((3, 3), (2, 4)):
        assert run_predict(source, "--format", "video", "--every", every)[0] == 0
        made = tmp_path / "out/clip.mp4/overlay.mp4"
        assert len(list(video.video_frames(made))) == count
        assert video.frame_rate(made) == pytest.approx(12 / every)


def test_a_video_that_cannot_be_written_keeps_nothing_else_from_being_written(run_predict, tmp_path):
    """Neither the other files, nor the errors of the images."""
    for name in "abc":
        clip(tmp_path / f"in/{name}.mp4", count=2)
    (tmp_path / "in/d.png").write_text("no image")
    assert run_predict(tmp_path / "in", "--format", "video,coco")[0] == 1
    (tmp_path / "out/b.mp4/000001_frame.jpg").write_text("damaged")
    (tmp_path / "out/_annotations.coco.json").unlink()
    (tmp_path / "out/c.mp4/overlay.mp4").unlink()
    status, out, err = run_predict(tmp_path / "in", "--format", "video,coco")
    assert status == 3
    assert "b.mp4/000001_frame.jpg: is not an image" in err
    assert "d.png: is not an image" in err
    assert "0 done, 6 were done before, 1 failed" in out
    assert (tmp_path / "out/_annotations.coco.json").is_file()
    assert (tmp_path / "out/c.mp4/overlay.mp4").is_file()


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("broken")])
def test_any_error_while_joining_is_told(run_predict, tmp_path, monkeypatch, error):
    def fail(*_):
        raise error

    monkeypatch.setattr(job_outputs, "join_coco", fail)
    status, out, err = run_predict(save(tmp_path / "a.png"), "--format", "coco,html")
    assert (status, "index.html" in out) == (3, True)
    assert f"_annotations.coco.json: cannot be written ({type(error).__name__}" in err


def test_processes_that_nothing_connects_leave_the_joining_to_one(run_predict, tmp_path, monkeypatch):
    for name in "abc":
        save(tmp_path / f"in/{name}.png")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    for rank in "01":
        monkeypatch.setenv("RANK", rank)
        status, out, _ = run_predict(tmp_path / "in", "--format", "coco,html,labels")
        assert (status, "for coco, html of the whole job, run this again in one process" in out) == (0, True)
        assert not (tmp_path / "out/_annotations.coco.json").exists()
    monkeypatch.delenv("WORLD_SIZE")
    monkeypatch.delenv("RANK")
    status, out, _ = run_predict(tmp_path / "in", "--format", "coco,html,labels")
    assert (status, "3 were done before" in out) == (0, True)
    assert listed(tmp_path / "out") == [str(tmp_path / f"in/{name}.png") for name in "abc"]


def test_the_folder_is_the_job_s_until_all_is_joined(run_predict, tmp_path, monkeypatch):
    image = save(tmp_path / "a.png")
    join, meanwhile = job_outputs.write_pieces, []

    def write_pieces(*arguments, **options):
        meanwhile.append(run_predict(image, "--format", "coco"))
        join(*arguments, **options)

    monkeypatch.setattr(job_outputs, "write_pieces", write_pieces)
    assert run_predict(image, "--format", "coco")[0] == 0
    ((status, _, err),) = meanwhile
    assert (status, "another run is writing" in err) == (3, True)


def test_an_interrupt_while_joining(run_predict, tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    image = save(tmp_path / "a.png")
    monkeypatch.setattr(prediction_job, "finish", interrupt)
    status, _, err = run_predict(image, "--format", "coco")
    assert (status, err.endswith("the same command continues from here\n")) == (130, True)


@pytest.mark.parametrize("name", ["_annotations.coco.json", "index.html"])
def test_a_data_set_or_a_site_that_is_there_is_not_replaced(run_predict, tmp_path, name):
    """A data set's own annotations have this name."""
    image, theirs = save(tmp_path / "a.png"), tmp_path / "out" / name
    theirs.parent.mkdir()
    theirs.write_text("theirs")
    status, _, err = run_predict(image, "--format", "coco,html")
    assert (status, f"holds {name}" in err, theirs.read_text()) == (3, True, "theirs")
    assert [file.name for file in theirs.parent.iterdir()] == [name]
    assert run_predict(image, "--format", "labels")[0] == 0
    assert run_predict(image, "--format", "coco,html", "--force")[0] == 0
    assert run_predict(image, "--format", "coco,html")[0] == 0
    assert theirs.read_text() != "theirs"
