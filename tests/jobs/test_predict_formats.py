"""Result files that other programs read, and those of a whole job."""

import base64
import csv
import io
import json
import re
from fractions import Fraction

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from err_seg.data.images import read_label as load_label_png
from err_seg.jobs import video
from tests.helpers.predicting import save

CLASSES = ["cat", "dog", "grass"]


@pytest.fixture
def images(tmp_path):
    for number in range(3):
        save(tmp_path / f"images/{'abc'[number]}.png", size=(40 + number, 30), seed=number)
    return tmp_path / "images"


def labels_of(folder, name):
    return load_label_png(folder / f"{name}_labels.png")


def test_masks(run_predict, images, tmp_path):
    out = tmp_path / "out"
    (out / "a_masks").mkdir(parents=True)
    (out / "a_masks/00002_stale.png").touch()
    save(tmp_path / "out/c_masks/drawn_by_hand.png")
    assert run_predict(images, "--format", "masks,labels")[0] == 0
    for name in "abc":
        labels = labels_of(out, name)
        listed = json.loads((out / f"{name}_masks/masks.json").read_text())
        assert {entry["label"] for entry in listed} == set(np.unique(labels).tolist())
        assert {entry["file"] for entry in listed} == {file.name for file in (out / f"{name}_masks").glob("0*.png")}
        for entry in listed:
            assert entry["file"] == f"{entry['label']:05d}_{CLASSES[entry['label']]}.png"
            mask = Image.open(out / f"{name}_masks" / entry["file"])
            assert mask.mode == "1"
            assert np.array_equal(np.asarray(mask), labels == entry["label"])
    assert (out / "c_masks/drawn_by_hand.png").is_file()


def test_names_that_are_no_names_of_files(run_predict, images, tmp_path):
    words = "../../cat; a/b\\c: d?; 猫" + "x" * 300
    status, _, _ = run_predict(images / "a.png", "--format", "masks", classes=words)
    assert status in (0, 2)  # 2 if the words are too long for the network
    assert run_predict(images / "a.png", "--format", "masks", "--force", classes="../../cat; a/b\\c: d?; 猫")[0] == 0
    folder = tmp_path / "out/a_masks"
    listed = json.loads((folder / "masks.json").read_text())
    assert listed
    assert all((folder / entry["file"]).is_file() for entry in listed)
    assert not {"/", "\\", ":", "?"} & set("".join(entry["file"] for entry in listed))


def rows_of(file):
    """Return the rows of a CSV file, each by the names of its columns."""
    with file.open(newline="", encoding="utf-8") as text:
        return list(csv.DictReader(text))


def test_tables(run_predict, images, tmp_path):
    """One for each image, with the numbers of the JSON files."""
    words = 'cat; sofa, "couch"; grass'
    assert run_predict(images, "--format", "csv,json", "--background", "grass", classes=words)[0] == 0
    for name in "abc":
        facts = json.loads((tmp_path / f"out/{name}.json").read_text())
        rows = rows_of(tmp_path / f"out/{name}.csv")
        assert list(rows[0]) == ["class", "label", "pixels", "share", "mean_score"]
        assert [list(row.values()) for row in rows] == [[str(v) for v in entry.values()] for entry in facts["classes"]]
        assert {row["class"] for row in rows} <= {"cat", 'sofa, "couch"'}
        pixels = sum(int(row["pixels"]) for row in rows) + facts["nothing"]["pixels"]
        assert pixels == np.prod(facts["size"])


@pytest.mark.parametrize(("content", "again"), [("", 1), ("rubbish", 1), ("\ufeffclass;label\r\ncat;0\r\n", 0)])
def test_a_table_is_made_again_unless_somebody_edited_it(run_predict, images, tmp_path, content, again):
    assert run_predict(images, "--format", "csv")[0] == 0
    table = tmp_path / "out/b.csv"
    before = table.read_bytes()
    table.write_text(content, encoding="utf-8", newline="")
    status, printed, _ = run_predict(images, "--format", "csv")
    assert (status, f"{again} done, {3 - again} were done before" in printed) == (0, True)
    assert table.read_bytes() == (before if again else content.encode("utf-8"))


def test_one_coco_data_set_for_the_job(run_predict, images, tmp_path, toy):
    status, printed, _ = run_predict(images, "--format", "coco,labels")
    assert status == 0
    assert "_annotations.coco.json" in printed
    coco = COCO(str(tmp_path / "out/_annotations.coco.json"))
    assert coco.dataset["info"] == {"weights": toy.source.facts()}
    assert [coco.imgs[i]["file_name"] for i in sorted(coco.imgs)] == [str(images / f"{name}.png") for name in "abc"]
    for number, name in enumerate("abc", start=1):
        labels = labels_of(tmp_path / "out", name)
        painted = np.full(labels.shape, 255)
        for annotation in coco.loadAnns(coco.getAnnIds(imgIds=[number])):
            assert 0 < annotation["score"] < 1
            painted[coco.annToMask(annotation).astype(bool)] = annotation["category_id"] - 1
        assert np.array_equal(painted, labels)


def test_a_job_s_files_are_of_all_its_runs(run_predict, images, tmp_path):
    """Of results that were there before as well, and not of images whose results are another's now."""
    assert run_predict(images / "b.png", "--format", "coco,html")[0] == 0
    first = (tmp_path / "out/_annotations.coco.json").read_text()
    assert len(json.loads(first)["images"]) == 1
    status, out, _ = run_predict(images, "--format", "coco,html")
    assert (status, "2 new images" in out) == (0, True), "whose areas are told"
    found = json.loads((tmp_path / "out/_annotations.coco.json").read_text())
    assert [image["width"] for image in found["images"]] == [40, 41, 42]
    assert [annotation["id"] for annotation in found["annotations"]] == list(range(1, len(found["annotations"]) + 1))
    save(images / "b.png", size=(50, 30), seed=9)
    assert run_predict(images, "--format", "coco,html")[0] == 0
    found = json.loads((tmp_path / "out/_annotations.coco.json").read_text())
    assert [image["width"] for image in found["images"]] == [40, 50, 42]


@pytest.mark.parametrize("content", ["{", "{}", "[]", '"images, annotations"'])
def test_a_damaged_part_is_named_and_made_again(run_predict, images, tmp_path, content):
    assert run_predict(images, "--format", "coco")[0] == 0
    part = tmp_path / "out/b_coco.json"
    part.write_text(content)
    status, _, errors = run_predict(images, "--format", "coco")
    assert status == 3
    assert f"{part} is damaged" in errors
    part.unlink()
    assert run_predict(images, "--format", "coco")[0] == 0
    assert len(json.loads((tmp_path / "out/_annotations.coco.json").read_text())["images"]) == 3


def test_polygons(run_predict, images, tmp_path):
    assert run_predict(images, "--format", "polygons,labels", "--background", "grass")[0] == 0
    features = json.loads((tmp_path / "out/a.geojson").read_text())["features"]
    labels = labels_of(tmp_path / "out", "a")
    for label, name in enumerate(["cat", "dog"]):
        areas = [f["properties"]["area"] for f in features if f["properties"]["class"] == name]
        assert sum(areas) == (labels == label).sum()
    assert {f["properties"]["class"] for f in features} <= {"cat", "dog"}


def test_the_page_holds_everything(run_predict, images, tmp_path):
    save(images / "d & <b>.png", seed=5)
    assert run_predict(images, "--format", "html", "--background", "grass")[0] == 0
    page = (tmp_path / "out/index.html").read_text(encoding="utf-8")
    assert not re.search(r"(src|href)=\"(?!data:)", page), "it needs no other file"
    assert "<b>" not in page.split("application/json")[1].split("</script>")[0]
    data = json.loads(re.search(r'id="data">(.*?)</script>', page, re.DOTALL).group(1))
    assert len(data["images"]) == 4
    assert set(data["colors"]) == {"cat", "dog"}
    assert any(entry["nothing"] > 0 for entry in data["images"])
    assert [entry["title"] for entry in data["images"]] == ["a.png", "b.png", "c.png", "d & <b>.png"]
    thumbnails = re.findall(r'class="thumbnail">(.*?)</script>', page)
    for entry, thumbnail in zip(data["images"], thumbnails, strict=True):
        assert max(Image.open(io.BytesIO(base64.b64decode(thumbnail))).size) <= 320
        assert entry["nothing"] + sum(row["share"] for row in entry["classes"]) == pytest.approx(1, abs=1e-4)


def test_names_change_the_overlay_and_are_a_setting(run_predict, tmp_path):
    save(tmp_path / "large.png", size=(500, 400))
    assert run_predict(tmp_path / "large.png")[0] == 0
    plain = np.asarray(Image.open(tmp_path / "out/large_overlay.png"))
    status, _, errors = run_predict(tmp_path / "large.png", "--names")
    assert status == 3
    assert "names" in errors
    assert run_predict(tmp_path / "large.png", "--names", "--force")[0] == 0
    assert not np.array_equal(plain, np.asarray(Image.open(tmp_path / "out/large_overlay.png")))


@pytest.mark.parametrize("library", ["av", "cv2"])
def test_a_video_of_overlays(run_predict, tmp_path, monkeypatch, library):
    pytest.importorskip(library)
    monkeypatch.setattr(video, "find_spec", lambda name: name == library)
    random = np.random.default_rng(0)
    frames = [random.integers(0, 256, (41, 61, 3), dtype=np.uint8).repeat(4, 0).repeat(4, 1) for _ in range(7)]
    video.write_video(frames, tmp_path / "clip.mp4", 12.0)
    assert run_predict(tmp_path / "clip.mp4", "--format", "video,overlay", "--every", "2")[0] == 0
    made = tmp_path / "out/clip.mp4/overlay.mp4"
    assert [frame().shape for frame in video.video_frames(made)] == [(164, 244, 3)] * 4
    assert video.frame_rate(made) == pytest.approx(6)
    first = next(video.video_frames(made))().astype(float)
    drawn = np.asarray(Image.open(tmp_path / "out/clip.mp4/000000_overlay.png"))[:164, :244]
    assert np.abs(first - drawn).mean() < 12, "but for the video's compression"
    assert not [file for file in made.parent.iterdir() if file.name.startswith(".")]


@pytest.mark.parametrize("library", ["av", "cv2"])
@pytest.mark.parametrize(("size", "even"), [((33, 47), (34, 48)), ((1, 1), (2, 2)), ((16, 1), (16, 2))])
def test_a_video_of_odd_size_loses_nothing(tmp_path, monkeypatch, library, size, even):
    pytest.importorskip(library)
    monkeypatch.setattr(video, "find_spec", lambda name: name == library)
    frame = np.full((*size, 3), 80, dtype=np.uint8)
    frame[-1, -1] = 160
    video.write_video([frame] * 2, tmp_path / "odd.mp4", 12.0)
    first, _ = (frame() for frame in video.video_frames(tmp_path / "odd.mp4"))
    assert first.shape == (*even, 3)
    assert first[-1, -1].mean() > first[0, 0].mean() or size == (1, 1)


def test_a_video_that_opencv_wrote_in_part_is_none(tmp_path, monkeypatch):
    """It does not say so, neither of a full disk nor of frames that it leaves out."""
    monkeypatch.setattr(video, "find_spec", lambda name: name == "cv2")
    frames = [np.zeros((40, 60, 3), np.uint8), np.zeros((20, 60, 3), np.uint8)]
    with pytest.raises(video.VideoError, match=r"overlay\.mp4: .*1 of 2 frames were written"):
        video.write_video(frames, tmp_path / "overlay.mp4", 12.0)
    assert not list(tmp_path.iterdir())


def test_a_video_that_cannot_be_encoded(tmp_path):
    with pytest.raises(video.VideoError, match=r"overlay\.mp4: there are no frames"):
        video.write_video(iter([]), tmp_path / "overlay.mp4", 12.0)
    with pytest.raises(video.VideoError, match=r"overlay\.mp4: cannot be written as a video"):
        video.write_video([np.zeros((40, 60, 3), np.uint8), "no frame"], tmp_path / "overlay.mp4", 12.0)
    assert not list(tmp_path.iterdir())


def test_the_rate_of_frames_that_come_as_they_like(tmp_path):
    """Recorders of screens note 1,000 frames a second, and a time for each."""
    av = pytest.importorskip("av")
    with av.open(str(tmp_path / "screen.mkv"), "w") as container:
        stream = container.add_stream("ffv1", rate=1000)
        stream.width, stream.height, stream.pix_fmt = 16, 16, "bgr0"
        for time in (0, 20, 300, 400):
            frame = av.VideoFrame.from_ndarray(np.zeros((16, 16, 3), np.uint8), format="rgb24")
            frame.pts, frame.time_base = time, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    assert video.frame_rate(tmp_path / "screen.mkv") == pytest.approx(3 / 0.4)


def test_the_rate_of_what_is_no_video(tmp_path):
    assert video.frame_rate(tmp_path / "gone.mp4") == 25
