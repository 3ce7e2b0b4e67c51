"""err-seg predict --smooth: the labels of Python's ``smoothed``, however the job was interrupted and divided."""

import numpy as np
import pytest

import err_seg
from err_seg.data.images import read_label as load_label_png
from err_seg.jobs import video
from tests.helpers.predicting import files, save

WORDS = ["cat", "dog", "grass"]

pytest.importorskip("cv2")


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Two videos of seven frames and an image; the frames are whatever is decoded."""
    folder, random = tmp_path_factory.mktemp("clips"), np.random.default_rng(0)
    for name in ("a", "b"):
        frames = [random.integers(0, 256, (20, 30, 3), dtype=np.uint8).repeat(4, 0).repeat(4, 1) for _ in range(7)]
        video.write_video(frames, folder / f"{name}.mp4", 12.0)
    save(folder / "image.png")
    return folder


def labels_of(folder):
    return {name: load_label_png(folder / name) for name in files(folder) if name.endswith("_labels.png")}


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    assert all(np.array_equal(found[name], expected[name]) for name in expected)


@pytest.fixture(scope="module")
def expected(toy, clips):
    found = {"image_labels.png": toy.predict(clips / "image.png", WORDS).labels.numpy()}
    for clip in ("a.mp4", "b.mp4"):
        frames = [frame() for frame in video.video_frames(clips / clip)]
        for number, result in enumerate(err_seg.smoothed(toy.predict_stream(frames, WORDS), 2)):
            found[f"{clip}/{number:06d}_labels.png"] = result.labels.numpy()
    return found


def test_all_formats_are_of_the_average(run_predict, clips, tmp_path, expected, toy):
    assert run_predict(clips, "--format", "labels,video", "--smooth", "2")[0] == 0
    assert_same(labels_of(tmp_path / "out"), expected)
    assert len(list(video.video_frames(tmp_path / "out/a.mp4/overlay.mp4"))) == 7
    frames = [frame() for frame in video.video_frames(clips / "a.mp4")]
    single = [result.labels.numpy() for result in toy.predict(frames, WORDS)]
    assert any((one != expected[f"a.mp4/{i:06d}_labels.png"]).any() for i, one in enumerate(single))


def test_an_interrupted_job_goes_on_to_the_same_labels(run_predict, clips, tmp_path, expected):
    options = "--format", "labels", "--smooth", "2"
    assert run_predict(clips, *options)[0] == 0
    gone = ["a.mp4/000000", "a.mp4/000005", "b.mp4/000006", "image"]
    for name in gone:
        (tmp_path / f"out/{name}_labels.png").unlink()
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.png")}
    _, printed, _ = run_predict(clips, *options)
    assert printed.splitlines()[-1] == "4 done, 11 were done before, 0 failed"
    assert_same(labels_of(tmp_path / "out"), expected)
    assert all(path.stat().st_mtime_ns == written for path, written in kept.items())


def test_only_frames_that_are_needed_are_predicted(run_predict, clips, tmp_path, toy, monkeypatch):
    options = "--format", "labels", "--smooth", "1"
    assert run_predict(clips, *options)[0] == 0
    (tmp_path / "out/b.mp4/000003_labels.png").unlink()
    predicted, predict = [], toy.predict
    monkeypatch.setattr(
        toy, "predict", lambda images, *rest, **named: (predicted.extend(images), predict(images, *rest, **named))[1]
    )
    assert run_predict(clips, *options)[0] == 0
    frames = [frame() for frame in video.video_frames(clips / "b.mp4")]
    assert [np.array_equal(one, frame) for one, frame in zip(predicted, frames[2:5], strict=True)] == [True] * 3


def test_processes_share_whole_videos(run_predict, clips, tmp_path, expected, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    counts = []
    for rank in ("1", "0"):
        monkeypatch.setenv("RANK", rank)
        assert run_predict(clips, "--format", "labels", "--smooth", "2", "--batch-size", "1")[0] == 0
        counts.append(len(labels_of(tmp_path / "out")))
    assert counts == [7, 15]
    assert_same(labels_of(tmp_path / "out"), expected)


def test_a_frame_that_fails_is_left_out_of_the_average(run_predict, clips, tmp_path, toy, monkeypatch):
    predict, frames = toy.predict, [frame() for frame in video.video_frames(clips / "a.mp4")]

    def fail(images, *rest, **named):
        if any(np.array_equal(image, frames[3]) for image in images):
            raise RuntimeError("broken")
        return predict(images, *rest, **named)

    monkeypatch.setattr(toy, "predict", fail)
    status, _, errors = run_predict(clips / "a.mp4", "--format", "labels", "--smooth", "1")
    assert status == 1
    assert "a.mp4, frame 3: the network failed on it: RuntimeError: broken" in errors
    assert len(labels_of(tmp_path / "out")) == 6


def test_it_is_a_setting_and_so_are_the_frames_taken(run_predict, clips, tmp_path):
    clip = clips / "a.mp4"
    assert run_predict(clip, "--format", "labels", "--smooth", "2")[0] == 0
    for options in (["--smooth", "1"], [], ["--smooth", "2", "--every", "2"]):
        status, _, errors = run_predict(clip, "--format", "labels", *options)
        assert status == 3
        assert "other settings" in errors
    status, _, errors = run_predict(clip, "--format", "attention", "--smooth", "2", output=tmp_path / "other")
    assert status == 2
    assert "leave out --smooth" in errors
