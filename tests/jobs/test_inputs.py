"""Sources get names of their own, videos come frame by frame, and processes share everything out exactly."""

import struct

import numpy as np
import pytest
from PIL import Image

from err_seg.jobs import Item, LabelSetError, Problem, collect_sources, iterate_items, parse_label_set, split_names
from err_seg.jobs import video as video_module
from err_seg.jobs.inputs import name_sources
from tests.helpers.predicting import files, save


def touch(*paths):
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4)).save(path)
    return [str(path) for path in paths]


def names(inputs):
    sources, problems = collect_sources(inputs)
    assert not problems
    return name_sources(sources)


def test_names_are_as_long_as_they_must_be(tmp_path):
    a, b, c, d = touch(*(tmp_path / name for name in ("x/cat.png", "y/cat.png", "x/cat.jpg", "x/dog.png")))
    assert names([a, d]) == ["cat", "dog"]
    assert names([a, c]) == ["cat.png", "cat.jpg"]
    assert names([a, b]) == ["x/cat.png", "y/cat.png"]
    assert names([a, a, str(tmp_path / "x/../x/cat.png")]) == ["cat"]
    assert names([str(tmp_path)]) == ["x/cat.jpg", "x/cat.png", "x/dog", "y/cat"]


def test_names_stay_in_the_folder_of_results(run_predict, tmp_path, monkeypatch):
    for seed, name in enumerate(("x.png", "sub/x.png", "link/x.png")):
        save(tmp_path / "in" / name, seed=seed)
    (tmp_path / "in/sub/deeper").symlink_to(tmp_path / "in/link")  # deeper/.. is not sub
    monkeypatch.chdir(tmp_path / "in/sub")
    inputs = ("../x.png", "x.png", "deeper/../sub/../x.png", "deeper/x.png")
    for done in (3, 0):
        status, printed, _ = run_predict(*inputs, "--format", "labels")
        assert (status, f"{done} done" in printed) == (0, True)
    assert len(files(tmp_path / "out")) == 3
    assert len(files(tmp_path / "in")) == 3


def test_every_item_has_exactly_one_process(tmp_path):
    touch(*(tmp_path / f"{i:02d}.png" for i in range(11)))
    sources, _ = collect_sources([str(tmp_path)])
    whole = [item.name for item in iterate_items(sources)]
    shares = [[item.name for item in iterate_items(sources, rank=rank, world_size=4)] for rank in range(4)]
    assert sorted(name for share in shares for name in share) == whole
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_empty_folder_is_a_problem(tmp_path):
    sources, problems = collect_sources([str(tmp_path)])
    assert not sources
    assert "holds no images" in problems[0].message


def test_video_without_library(tmp_path, monkeypatch):
    (tmp_path / "clip.mp4").write_bytes(b"")
    monkeypatch.setattr(video_module, "find_spec", lambda name: None)
    (problem,) = iterate_items(collect_sources([str(tmp_path / "clip.mp4")])[0])
    assert isinstance(problem, Problem)
    assert "pip install av" in problem.message


def test_frames_of_a_video(tmp_path):
    av = pytest.importorskip("av")
    with av.open(str(tmp_path / "clip.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=5)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for level in range(0, 250, 25):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), level, dtype=np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    (tmp_path / "broken.mp4").write_bytes(b"not a video")
    sources, _ = collect_sources([str(tmp_path)])
    problem, *items = iterate_items(sources, every=3)
    assert isinstance(problem, Problem)
    assert "broken.mp4" in problem.message
    assert [(item.name, item.frame) for item in items] == [("clip.mp4", i) for i in (0, 3, 6, 9)]
    assert all(isinstance(item, Item) for item in items)
    frames = [item.read() for item in items]
    assert frames[0].shape == (48, 64, 3)
    assert [round(frame.mean() / 25) for frame in frames] == [0, 3, 6, 9]


def test_words():
    assert split_names("cat, dog ,, grass,") == ("cat", "dog", "grass")
    assert split_names("cat; sofa, couch;") == ("cat", "sofa, couch")
    assert split_names("cat\nsofa, couch\r\n\n") == ("cat", "sofa, couch")
    words = parse_label_set(["cat", "wall"], ["wall, floor", "0.25"])
    assert (words.classes, words.background, words.threshold) == (("cat",), ("wall", "floor"), 0.25)
    with pytest.raises(LabelSetError, match="besides the background"):
        parse_label_set(["wall"], ["wall"])


def test_addresses_are_named_by_their_files():
    first, second = "https://host/a/cat.jpg?key=1", "https://host/b/cat.png"
    assert names([first]) == ["cat"]
    assert names([first, second]) == ["cat.jpg", "cat.png"]
    assert names([first, "https://host/b/cat.jpg"]) == ["a/cat.jpg", "b/cat.jpg"]
    one, other = names([first, "https://host/a/cat.jpg?key=2"])
    assert one != other
    assert {one.partition("-")[0], other.partition("-")[0]} == {"host/a/cat.jpg"}
    assert names([first, first]) == ["cat"]
    assert names(["https://host/../..", "https://"]) == ["host", "image"]


@pytest.mark.parametrize("library", ["av", "cv2"])
@pytest.mark.parametrize("turns", [0, 1, 2, 3])
def test_a_video_that_was_filmed_on_its_side_is_upright(tmp_path, monkeypatch, library, turns):
    pytest.importorskip(library)
    monkeypatch.setattr(video_module, "find_spec", lambda name: name == library)
    frame = np.zeros((40, 80, 3), dtype=np.uint8)
    frame[:20, :40] = 200
    video_module.write_video([frame] * 2, tmp_path / "clip.mp4", 10.0)
    data = bytearray((tmp_path / "clip.mp4").read_bytes())
    matrix = data.index(b"tkhd") + 44  # in the track's header
    cosine, sine = ((1, 0), (0, 1), (-1, 0), (0, -1))[turns]
    data[matrix : matrix + 20] = struct.pack(">5i", cosine << 16, sine << 16, 0, -sine << 16, cosine << 16)
    (tmp_path / "clip.mp4").write_bytes(data)
    first = next(video_module.video_frames(tmp_path / "clip.mp4"))()
    assert first.shape == np.rot90(frame, -turns).shape, "clockwise"
    assert np.abs(first.astype(int) - np.rot90(frame, -turns)).mean() < 10
