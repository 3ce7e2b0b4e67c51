"""Videos that end before their time: what can be read is kept, and the problem is reported."""

import cv2
import numpy as np
import pytest

from err_seg.jobs import video
from tests.helpers.predicting import files

COUNT, SIZE = 40, (64, 48)


@pytest.fixture(params=["av", "cv2"])
def library(request, monkeypatch):
    pytest.importorskip(request.param)
    monkeypatch.setattr(video, "find_spec", lambda name: name == request.param or None)
    return request.param


def frames(count=COUNT):
    random = np.random.default_rng(0)
    return random.integers(0, 256, (count, SIZE[1], SIZE[0], 3), dtype=np.uint8)


def film(path, codec="MJPG", count=COUNT):
    """Write a video as OpenCV does: with the number of frames at its beginning, or the length in seconds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), 25, SIZE)
    for frame in frames(count):
        writer.write(frame)
    writer.release()
    return path


def av_film(path, codec, count=COUNT, sound=0.0, pauses=False, **options):
    """Write a video with PyAV; ``sound`` seconds of it, and from the middle on each frame as long as three."""
    av = pytest.importorskip("av")
    with av.open(str(path), "w", options=options) as container:
        if count:
            stream = container.add_stream(codec, rate=25)
            (stream.width, stream.height), stream.pix_fmt = SIZE, "yuv420p"
        voice = container.add_stream("aac", rate=16000) if sound else None
        for number, frame in enumerate(frames(count)):
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
            picture.pts = number + max(0, number - count // 2) * 2 * pauses
            container.mux(stream.encode(picture))
        if count:
            container.mux(stream.encode())
        for number in range(int(sound * 16000 / 1024)):
            heard = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            heard.sample_rate, heard.pts = 16000, number * 1024
            container.mux(voice.encode(heard))
    return path


def cut(path, share=0.5):
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    return path


def read(path):
    """How many frames can be read, and what is wrong with the video."""
    found = 0
    try:
        for decode in video.video_frames(path):
            assert decode().shape == (SIZE[1], SIZE[0], 3)
            found += 1
    except video.VideoError as error:
        return found, str(error)
    return found, ""


@pytest.mark.parametrize("codec", ["MJPG", "mp4v"])
def test_a_video_that_is_cut_keeps_its_frames_and_is_reported(library, tmp_path, codec):
    whole = film(tmp_path / "a.avi", codec)
    assert read(whole) == (COUNT, "")
    found, problem = read(cut(whole))
    assert 5 < found < COUNT * 0.6
    assert "a.avi" in problem
    assert library == "av" or "announces 1.6 s; it may be cut short" in problem


def test_the_command_reports_a_cut_video(run_predict, library, tmp_path):
    """It gave half of the frames and status 0, and the other half never got a result."""
    film(tmp_path / "in/a.avi")
    film(tmp_path / "in/b.avi", count=3)
    cut(tmp_path / "in/a.avi")
    for done in (True, False):
        status, out, err = run_predict(tmp_path / "in", "--format", "labels", "--every", 5)
        assert status == 1
        (line,) = err.strip().splitlines()
        assert "a.avi" in line
        assert ("0 were done before" in out) == done
    assert "000003" not in str(files(tmp_path / "out"))
    assert len(files(tmp_path / "out")) == 5, "four frames of the cut video, one of the other"


@pytest.mark.parametrize(
    ("name", "codec", "by_opencv", "options"),
    [
        ("a.mp4", "libx264", True, {"movflags": "faststart"}),
        ("a.mkv", "libx264", True, {}),
        ("a.webm", "libvpx", True, {}),
        ("a.flv", "libx264", True, {}),
        ("a.ts", "libx264", False, {}),  # says nowhere how long it is; PyAV sees that the last frame is damaged
        ("a.wmv", "wmv2", False, {}),
    ],
)
def test_containers(library, tmp_path, name, codec, by_opencv, options):
    whole = av_film(tmp_path / name, codec, **options)
    assert read(whole) == (COUNT, "")
    found, problem = read(cut(whole))
    assert 5 < found < COUNT * 0.6
    assert bool(problem) == (by_opencv or library == "av")


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_uneven_frames_and_sound_that_goes_on_are_no_cut(library, tmp_path, name):
    """The number of frames is only a guess in many containers: length by the usual rate."""
    assert read(av_film(tmp_path / name, "libx264", pauses=True)) == (COUNT, "")
    assert read(av_film(tmp_path / f"b{name}", "libx264", 100, sound=4.1)) == (100, "")


def test_sound_alone_is_named(library, tmp_path):
    found, problem = read(av_film(tmp_path / "a.mp4", "", count=0, sound=2.0))
    assert found == 0
    assert ("holds no pictures, only sound" in problem) if library == "av" else ("not only sound" in problem)
