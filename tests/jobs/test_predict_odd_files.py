"""No file ends the whole job by its name, its kind or what becomes of it; all others are done."""

import errno
import json
import os
import sys
from pathlib import Path, PurePosixPath

import pytest
import torch
from PIL import Image

from err_seg.jobs import collect_sources, failures, unsupported_formats
from err_seg.jobs import formats as formats_module
from err_seg.jobs import video as video_module
from err_seg.jobs.inputs import Source, name_sources
from err_seg.jobs.result_names import name_key
from err_seg.jobs.video import is_video
from tests.helpers.predicting import files, save

ALL = "overlay,labels,json,rle,kept,attention"
ENDINGS = ("_attention.png", "_kept.png", "_labels.png", "_overlay.png", "_rle.json", ".json")


def test_longest_names(run_predict, tmp_path):
    names = ["n" * 240, "n" * 239 + "m", "n" * 251, "é" * 122, "a" * 20]
    for seed, name in enumerate(names):
        save(tmp_path / f"in/{name}.png", seed=seed)
    for done in (5, 0):
        status, out, _ = run_predict(tmp_path / "in", "--format", ALL)
        assert (status, f"{done} done" in out) == (0, True)
    results = files(tmp_path / "out")
    assert len(results) == 5 * len(ENDINGS)
    assert all(len(os.fsencode(name)) <= 255 for name in results)
    facts = [json.loads((tmp_path / "out" / name).read_text()) for name in results if name.endswith("n.json")]
    assert all(name.isprintable() for name in results)
    assert all("picture" in fact for fact in facts)


def test_names_that_differ_in_case_only(run_predict, tmp_path):
    for seed, name in enumerate(("A.png", "a.png", "B.png", "b.jpg", "é.png", "e\N{COMBINING ACUTE ACCENT}.png")):
        save(tmp_path / "in" / name, seed=seed)
    for done in (6, 0):
        status, out, _ = run_predict(tmp_path / "in", "--format", "labels")
        assert (status, f"{done} done" in out) == (0, True)
    results = files(tmp_path / "out")
    assert len({name.casefold() for name in results}) == 6
    assert {"A_labels.png", "B.png_labels.png", "b.jpg_labels.png"} <= set(results)


def test_names_that_answer_each_other(tmp_path):
    """Whatever a name is made unique by may itself be a file's name."""
    images = [save(tmp_path / name) for name in ("x/A.png", "x/a.png")]
    sources, _ = collect_sources(map(str, images))
    taken = images[0].with_name(name_sources(sources)[1].rpartition("/")[2])
    taken.write_bytes(images[0].read_bytes())
    sources, _ = collect_sources(map(str, [*images, taken]))
    assert len(set(name_sources(sources))) == 3


def test_no_file_of_a_result_is_another_s(tmp_path):
    """Nor one of the whole job, whatever the images are called."""
    endings = [ending for ending, _ in formats_module.FORMATS.values()]
    behind = ["_masks/00000_cat.png", ".mp4/000001_frame.jpg", ".mp4/overlay.mp4"]
    named = [Path(f"a{ending}") for ending in [*endings, *behind]] + [Path("_Annotations.coco.json")]
    sources, _ = collect_sources([str(save(tmp_path / "a.png"))])
    sources += [Source(tmp_path / "b/a.mp4", Path("a.mp4"))]
    sources += [Source(tmp_path / path, path) for path in named if not is_video(path)]
    sources += [Source(tmp_path / path, path) for path in named if is_video(path)]
    written = ["_annotations.coco.json", "index.html"]
    for source, name in zip(sources, name_sources(sources), strict=True):
        ways = [f"{name}/overlay.mp4", f"{name}/000001"] if is_video(source.relative) else [name]
        written += [*ways[:-1], *(ways[-1] + ending for ending in endings), f"{ways[-1]}_masks/00000_cat.png"]
    keys = [name_key(file) for file in written]
    assert len(set(keys)) == len(keys)
    assert not set(keys) & {str(folder) for key in keys for folder in PurePosixPath(key).parents}, "a file as a folder"


@pytest.mark.parametrize("first", [True, False])
def test_images_called_like_results_keep_their_results(run_predict, tmp_path, first):
    names = ["a", "a_rle", "a_coco", "a_page", "_annotations.coco", "a_masks/masks", "a_masks/00000_cat"]
    images = [save(tmp_path / f"in/{name}.png", seed=seed) for seed, name in enumerate(names)]
    asked = ("--format", "json,rle,coco,html,masks,labels")
    if first:  # in a job of its own
        assert run_predict(images[0], *asked)[0] == 0
    assert run_predict(tmp_path / "in", *asked)[0] == 0
    lines = [json.loads(line) for line in (tmp_path / "out/manifest.jsonl").read_text().splitlines()[1:]]
    assert len(lines) == len(names)
    for line in lines:
        facts, listed, part = (
            json.loads((tmp_path / "out" / f"{line['name']}{ending}").read_text())
            for ending in (".json", "_masks/masks.json", "_coco.json")
        )
        assert facts["picture"] == part["images"][0]["file_name"] == line["source"]
        assert [row["pixels"] for row in facts["classes"]] == [row["pixels"] for row in listed]


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_names_that_are_not_utf8(run_predict, tmp_path):
    folder = tmp_path / os.fsdecode(b"f\xf6lder")
    save(folder / os.fsdecode(b"caf\xe9.png"))
    (folder / os.fsdecode(b"damag\xe9.png")).write_bytes(b"no image")
    (folder / os.fsdecode(b"\xe9.heic")).write_bytes(b"no image")
    save(folder / "good.png", seed=1)
    status, out, err = run_predict(folder, "--format", ALL, output=folder / "out")
    assert status == 1
    assert "2 done, 0 were done before, 2 failed" in out
    assert "damag" in err
    results = files(folder / "out")
    assert len(results) == 2 * len(ENDINGS)
    facts = json.loads((folder / "out" / os.fsdecode(b"caf\xe9.json")).read_text(encoding="utf-8"))
    assert facts["picture"].endswith(r"f\xf6lder/caf\xe9.png")
    assert "2 were done before" in run_predict(folder, "--format", ALL, output=folder / "out")[1]


@pytest.mark.parametrize("library", ["av", "cv2"])
def test_videos_whose_names_are_not_utf8(run_predict, tmp_path, library, monkeypatch):
    pytest.importorskip(library)
    monkeypatch.setattr(video_module, "find_spec", lambda name: name == library or None)
    (tmp_path / os.fsdecode(b"\xe9.mp4")).write_bytes(b"no video")
    save(tmp_path / "good.png")
    status, out, err = run_predict(tmp_path)
    assert (status, r"\xe9.mp4" in err, "1 done" in out) == (1, True, True)


def test_result_that_a_file_system_refuses_is_the_images_problem(run_predict, tmp_path):
    (tmp_path / "out/b_labels.png").mkdir(parents=True)
    for name in "abc":
        save(tmp_path / f"in/{name}.png")
    status, out, err = run_predict(tmp_path / "in", "--format", "labels")
    assert (status, "2 done" in out, "b.png" in err) == (1, True, True)


@pytest.mark.parametrize("error", [MemoryError(), ValueError("cannot draw"), OSError(errno.ENAMETOOLONG, "too long")])
def test_result_that_cannot_be_drawn_is_the_images_problem(run_predict, tmp_path, monkeypatch, error):
    write = formats_module.FORMATS["labels"][1]

    def fail(result, path):
        if result.name == "b":
            raise error
        write(result, path)

    monkeypatch.setitem(formats_module.FORMATS, "labels", ("_labels.png", fail))
    for name in "abc":
        save(tmp_path / f"in/{name}.png")
    status, out, err = run_predict(tmp_path / "in", "--format", "labels")
    assert (status, "2 done, 0 were done before, 1 failed" in out, "b.png" in err) == (1, True, True)


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("a.HEIC", "pip install pillow-heif"),
        ("a.heif", "pip install pillow-heif"),
        ("a.avif", "pip install --upgrade pillow"),
        ("a.CR2", "develop it to TIFF or JPEG"),
        ("a.dng", "develop it to TIFF or JPEG"),
        ("a.jxl", "djxl"),
        ("a.svg", "rsvg-convert"),
        ("a.xwd", "convert it to PNG"),
        ("a.movie", "convert it to MP4"),
        ("a.mp4", "pip install av"),
        ("a.3gp", "pip install av"),
    ],
)
def test_what_looks_like_a_image_or_video_is_named_with_what_it_needs(run_predict, tmp_path, monkeypatch, name, advice):
    bare = {".jpg": "JPEG", ".png": "PNG", ".pdf": "PDF"}
    monkeypatch.setattr(unsupported_formats, "image_suffixes", lambda: frozenset(bare) - {".pdf"})
    monkeypatch.setattr(video_module, "find_spec", lambda name: None)
    save(tmp_path / "in/good.png")
    Image.new("RGB", (9, 9)).save(tmp_path / "in/deep.tif")
    (tmp_path / "in/deep.tif").rename(tmp_path / "in" / name)  # many raw files begin like TIFF, with a thumbnail
    if is_video(Path(name)):
        (tmp_path / "in" / name).write_text("in no format that OpenCV reads")
    for other in ("notes.txt", "paper.pdf", "model.onnx", "noending"):
        (tmp_path / "in" / other).write_text("neither")
    for argument in ("in", f"in/{name}"):
        status, _, err = run_predict(tmp_path / argument)
        (line,) = err.strip().splitlines()
        assert status == 1
        assert name in line
        assert advice in line
    assert files(tmp_path / "out") == ["good_overlay.png"]


def test_heic_is_read_where_its_reader_is_installed(run_predict, tmp_path):
    pillow_heif = pytest.importorskip("pillow_heif")
    unsupported_formats.image_suffixes.cache_clear()
    pillow_heif.from_pillow(Image.new("RGB", (64, 48), "red")).save(tmp_path / "a.heic")
    assert run_predict(tmp_path)[0] == 0
    assert files(tmp_path / "out") == ["a_overlay.png"]


def test_links_to_nowhere_and_closed_folders_are_told_and_pipes_are_not_waited_for(run_predict, tmp_path, monkeypatch):
    save(tmp_path / "in/good.png")
    (tmp_path / "in/link.png").symlink_to(tmp_path / "nowhere.png")
    os.mkfifo(tmp_path / "in/pipe.png")
    walk = os.walk

    def closed(folder, onerror):
        onerror(PermissionError(errno.EACCES, "Permission denied", str(tmp_path / "in/closed")))
        return walk(folder)

    monkeypatch.setattr("err_seg.jobs.inputs.os.walk", closed)
    status, out, err = run_predict(tmp_path / "in")
    assert (status, "1 done" in out) == (1, True)
    closed_line, link_line = err.strip().splitlines()
    assert "closed: Permission denied" in closed_line
    assert "link.png: no such file" in link_line


def test_nothing_but_the_results_own_folder_is_told(run_predict, tmp_path):
    image = save(tmp_path / "a.png")
    for argument in (tmp_path, image):
        status, _, err = run_predict(argument, output=tmp_path)
        assert status == 1
        assert "the results' own folder" in err


def test_a_point_outside_the_image_is_refused(run_predict, tmp_path):
    save(tmp_path / "in/large.png", size=(60, 50))
    save(tmp_path / "in/small.png", size=(40, 30))
    options = ("--format", "attention", "--point")
    status, out, err = run_predict(tmp_path / "in", *options, 45, 35)
    assert (status, "1 done, 0 were done before, 1 failed" in out) == (1, True)
    assert "small.png: the point (45, 35) lies outside of this image of 40x30" in err
    for x, y, outside in ((39, 29, False), (40, 29, True), (39, 30, True)):
        status, _, err = run_predict(tmp_path / "in/small.png", *options, x, y, output=tmp_path / f"{x}-{y}")
        assert status == outside
    status, _, err = run_predict(tmp_path / "in", *options, -1, 3)
    assert (status, "outside of every image" in err or "expected 2 arguments" in err) == (2, True)
    assert run_predict(tmp_path / "in", "--point", 1, 3)[0] == 2


class Failing:
    """The toy network, failing on some batches."""

    def __init__(self, model, monkeypatch, fail):
        self.sizes = []
        predict = model.predict

        def counting(images, *arguments, **options):
            self.sizes.append(len(images))
            fail(images)
            return predict(images, *arguments, **options)

        monkeypatch.setattr(model, "predict", counting)


OUT_OF_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    MemoryError(),
    RuntimeError("[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory"),
]


@pytest.mark.parametrize("error", OUT_OF_MEMORY)
def test_lack_of_memory_is_answered_by_a_smaller_batch_once(run_predict, toy, tmp_path, monkeypatch, caplog, error):
    for i in range(10):
        save(tmp_path / f"in/{i}.png", seed=i)

    def fail(images):
        if len(images) > 2:
            raise error

    network = Failing(toy, monkeypatch, fail)
    status, out, _ = run_predict(tmp_path / "in", "--format", "labels", "--batch-size", 5)
    assert (status, "10 done" in out) == (0, True)
    assert network.sizes == [5, 2, 2, 1, 2, 2, 1]
    assert [record.getMessage() for record in caplog.records] == [
        "out of memory with 5 images at a time; going on with 2"
    ]


def test_a_image_too_large_for_the_memory_is_a_problem(run_predict, toy, tmp_path, monkeypatch):
    for i in range(3):
        save(tmp_path / f"in/{i}.png", size=(40, 31 if i == 1 else 30))

    def fail(images):
        if any(image.shape[0] == 31 for image in images):
            raise OUT_OF_MEMORY[0]

    Failing(toy, monkeypatch, fail)
    status, out, err = run_predict(tmp_path / "in", "--batch-size", 3)
    assert (status, "2 done, 0 were done before, 1 failed" in out) == (1, True)
    assert "1.png: too large for the memory: OutOfMemoryError: CUDA out of memory" in err


@pytest.mark.parametrize("error", [RuntimeError("shape mismatch"), IndexError("out of range"), ValueError("odd")])
def test_any_other_error_of_the_network_is_the_images_problem(run_predict, toy, tmp_path, monkeypatch, caplog, error):
    for i in range(4):
        save(tmp_path / f"in/{i}.png", size=(40, 31 if i == 1 else 30))

    def fail(images):
        if any(image.shape[0] == 31 for image in images):
            raise error

    network = Failing(toy, monkeypatch, fail)
    status, out, err = run_predict(tmp_path / "in", "--batch-size", 2)
    assert (status, "3 done, 0 were done before, 1 failed" in out) == (1, True)
    assert f"1.png: the network failed on it: {type(error).__name__}: {error}" in err
    assert network.sizes == [2, 1, 1, 2]
    assert not caplog.records


def test_a_device_that_failed_ends_the_run_and_keeps_what_is_done(run_predict, toy, tmp_path, monkeypatch):
    """As after a device-side assertion: a RuntimeError, and from then on every call fails."""
    for i in range(6):
        save(tmp_path / f"in/{i}.png", seed=i)
    reason = "CUDA error: device-side assert triggered\nCUDA kernel errors might be asynchronously reported"
    ones, failed = torch.ones, []

    def broken_ones(*size, **options):
        if failed:
            raise RuntimeError(reason)
        return ones(*size, **options)

    def fail(images):
        if len(network.sizes) == 4 or failed:
            failed.append(True)
            raise RuntimeError(reason)

    monkeypatch.setattr(failures.torch, "ones", broken_ones)
    with monkeypatch.context() as patch:
        network = Failing(toy, patch, fail)
        status, _, err = run_predict(tmp_path / "in", "--format", "labels")
    assert status == 4
    (line,) = err.strip().splitlines()
    assert "device cpu failed and no longer computes (RuntimeError: CUDA error: device-side assert" in line
    assert len(network.sizes) == 4, "the fourth image's error ends the run"
    assert files(tmp_path / "out") == [f"{i}_labels.png" for i in range(3)]
    failed.clear()
    assert "3 done, 3 were done before, 0 failed" in run_predict(tmp_path / "in", "--format", "labels")[1]


def test_attention_of_a_network_without_escf_is_refused_before_anything_is_done(
    run_predict, toy, tmp_path, monkeypatch
):
    monkeypatch.setattr(toy.head, "escf", None)
    status, _, err = run_predict(save(tmp_path / "a.png"), "--format", "attention")
    assert (status, "no ESCF" in err) == (2, True)
    assert not (tmp_path / "out").exists()
