"""A result is taken for done only if it is of this image, by these weights, under these settings."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from PIL import Image

import err_seg
from err_seg.commands import models
from err_seg.commands.predict import parse_arguments
from err_seg.commands.prediction_job import settings_of
from err_seg.data import ImageReadError
from err_seg.data.images import read_label as load_label_png
from err_seg.jobs import OutputError, input_digest, inputs, open_output
from err_seg.jobs import manifest as manifest_module
from err_seg.jobs.input_digest import FileContent
from err_seg.jobs.label_set import parse_label_set
from err_seg.jobs.manifest import is_readable_result
from err_seg.plugins import import_packages
from err_seg.prediction.contrast import Contrast
from err_seg.utils.files import file_sha256
from err_seg.utils.fingerprint import RESULT_FORMAT, file_digest
from tests.helpers.predicting import files, save
from tests.helpers.toy import REPOSITORY

WORDS = ["cat", "dog", "grass"]


@pytest.fixture
def assert_labels(toy):
    """Return a function that checks that a label file is of an image."""

    def check(file, image):
        expected = toy.predict([image], WORDS)[0].labels.numpy()
        np.testing.assert_array_equal(load_label_png(file), expected)

    return check


def lines(folder, name="manifest.jsonl"):
    return [json.loads(line) for line in (folder / name).read_text().splitlines()][1:]


def test_images_of_one_name_in_two_runs_get_two_results(run_predict, tmp_path, assert_labels):
    a, b = save(tmp_path / "A/cat.png"), save(tmp_path / "B/cat.png", seed=1)
    assert run_predict(a, "--format", "labels")[0] == 0
    status, out, _ = run_predict(b, "--format", "labels")
    name = f"cat-{file_digest(b)[:8]}"
    assert (status, files(tmp_path / "out")) == (0, [f"{name}_labels.png", "cat_labels.png"])
    assert f"B/cat.png: results are named {name}" in out
    assert_labels(tmp_path / "out/cat_labels.png", a)
    assert_labels(tmp_path / f"out/{name}_labels.png", b)
    for image in (a, b):
        assert "0 done, 1 were done before" in run_predict(image, "--format", "labels")[1]
    assert "2 done" in run_predict(a, b, "--format", "labels")[1]  # names as long as they must be within one run
    assert len(files(tmp_path / "out")) == 4


def test_a_image_replaced_at_its_path_is_done_again(run_predict, tmp_path, assert_labels):
    image = save(tmp_path / "cat.png")
    other = save(tmp_path / "other.png", seed=1)
    assert run_predict(image, "--format", "labels")[0] == 0
    times = image.stat()
    shutil.copyfile(other, image)
    os.utime(image, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert "1 done, 0 were done before" in run_predict(image, "--format", "labels")[1]
    assert files(tmp_path / "out") == ["cat_labels.png"]
    assert_labels(tmp_path / "out/cat_labels.png", other)
    image.touch()
    assert "0 done, 1 were done before" in run_predict(image, "--format", "labels")[1]


def test_each_image_on_standard_input_is_done(run_predict, tmp_path, monkeypatch, assert_labels):
    for seed, done in ((0, 1), (1, 1), (1, 0), (0, 1)):
        image = save(tmp_path / f"{seed}.png", seed=seed)
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(image.read_bytes())))
        assert f"{done} done, {1 - done} were done before" in run_predict("-", "--format", "labels")[1]
        assert files(tmp_path / "out") == ["stdin_labels.png"]
        assert_labels(tmp_path / "out/stdin_labels.png", image)


def test_other_weights_of_equal_name_and_size_are_other_settings(run_predict, tmp_path, toy, toy_weights, monkeypatch):
    image = save(tmp_path / "cat.png")
    assert run_predict(image)[0] == 0
    model = err_seg.load(toy_weights, device="cpu")
    with torch.no_grad():
        model.head.gud.head.bias += 1
    monkeypatch.setattr(models, "load_model", lambda arguments: model)
    status, _, err = run_predict(image)
    assert status == 3
    assert "other settings (weights is" in err
    assert run_predict(image, "--force")[0] == 0
    monkeypatch.setattr(models, "load_model", lambda arguments: toy)
    assert run_predict(image)[0] == 3
    # the same weights in another network
    model = err_seg.load(toy_weights, overrides=["INPUT.SIZE", 96], device="cpu")
    monkeypatch.setattr(models, "load_model", lambda arguments: model)
    status, _, err = run_predict(image, output=tmp_path / "out")
    assert status == 3
    run_predict(image, "--force", output=tmp_path / "out")
    monkeypatch.setattr(models, "load_model", lambda arguments: err_seg.load(toy_weights, device="cpu"))
    assert "INPUT.SIZE is 64 now and was 96" in run_predict(image)[2]


def film(path, levels):
    av = pytest.importorskip("av")
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=5)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for level in levels:
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), level, dtype=np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def test_the_manifest_says_where_the_weights_came_from(run_predict, tmp_path, toy_weights):
    assert run_predict(save(tmp_path / "cat.png"))[0] == 0
    first = json.loads((tmp_path / "out/manifest.jsonl").read_text().splitlines()[0])
    assert first["source"]["sha256"] == file_sha256(toy_weights)


def test_frames_belong_to_their_video(run_predict, tmp_path):
    a, b = film(tmp_path / "A/clip.mp4", range(0, 100, 20)), film(tmp_path / "B/clip.mp4", range(0, 250, 25))
    assert "3 done, 0 were" in run_predict(a, "--every", 2, "--format", "labels")[1]
    assert "2 done, 3 were" in run_predict(a, "--format", "labels")[1]
    _, out, _ = run_predict(b, "--format", "labels")
    name = f"clip.mp4-{file_digest(b)[:8]}"
    assert "10 done, 0 were" in out
    assert out.count("results are named") == 1
    assert files(tmp_path / "out") == sorted(
        [*(f"{name}/{i:06d}_labels.png" for i in range(10)), *(f"clip.mp4/{i:06d}_labels.png" for i in range(5))]
    )
    assert "0 done, 10 were" in run_predict(b, "--format", "labels")[1]
    film(a, range(100, 200, 20))
    assert "5 done, 0 were" in run_predict(a, "--format", "labels")[1]
    assert "0 done, 5 were" in run_predict(a, "--format", "labels")[1]
    assert len(files(tmp_path / "out")) == 15


def test_digest_is_spared_only_where_the_file_is_proven_to_be_the_same(run_predict, tmp_path, monkeypatch):
    images = [save(tmp_path / f"in/{i}.png", seed=i) for i in range(3)]
    digested = []
    monkeypatch.setattr(input_digest, "file_digest", lambda path: digested.append(path) or file_digest(path))
    monkeypatch.setattr(input_digest, "is_settled", lambda signature: True)
    assert run_predict(tmp_path / "in")[0] == 0
    assert len(digested) == 3
    assert "3 were done before" in run_predict(tmp_path / "in")[1]
    assert len(digested) == 3
    time.sleep(0.02)
    images[1].touch()
    for _ in range(2):
        assert "3 were done before" in run_predict(tmp_path / "in")[1]
        assert digested[3:] == [str(images[1])]
    shutil.move(tmp_path / "in", tmp_path / "moved")
    assert "0 done, 3 were done before" in run_predict(tmp_path / "moved")[1]


def test_addresses_are_known_by_what_is_there(run_predict, tmp_path, monkeypatch, assert_labels):
    site = {f"https://host/{name}.png": save(tmp_path / f"{name}.png", seed=ord(name)) for name in "abc"}

    def fetch(url):
        if url not in site:
            raise ImageReadError(f"{url}: the server answers 404")
        return site[url].read_bytes()

    monkeypatch.setattr(inputs, "fetch", fetch)
    status, printed, errors = run_predict(*site, "https://host/none.png", "--format", "labels,json")
    assert (status, printed.splitlines()[-1]) == (1, "3 done, 0 were done before, 1 failed")
    assert "https://host/none.png: the server answers 404" in errors
    assert json.loads((tmp_path / "out/a.json").read_text())["picture"] == "https://host/a.png"
    site["https://host/b.png"] = save(tmp_path / "other.png", seed=9)
    assert "1 done, 2 were done before" in run_predict(*site, "--format", "labels,json")[1]
    for name, image in zip("abc", site.values(), strict=True):
        assert_labels(tmp_path / f"out/{name}_labels.png", image)


def test_addresses_that_differ_in_their_query_do_not_replace_each_other(
    run_predict, tmp_path, monkeypatch, assert_labels
):
    """Nor is the query, which may hold a key, written anywhere."""
    site = {f"https://host/get?key=secret{i}": save(tmp_path / f"{i}.png", seed=i) for i in range(2)}
    monkeypatch.setattr(inputs, "fetch", lambda url: site[url].read_bytes())
    for url in site:
        assert "1 done, 0 were" in run_predict(url, "--format", "labels")[1]
    assert "0 done, 1 were" in run_predict(next(iter(site)), "--format", "labels")[1]
    first, second = sorted((tmp_path / "out").glob("*_labels.png"), key=lambda file: len(file.name))
    assert_labels(first, tmp_path / "0.png")
    assert_labels(second, tmp_path / "1.png")
    assert "secret" not in (tmp_path / "out/manifest.jsonl").read_text()


def test_results_that_are_gone_are_made_again(run_predict, tmp_path):
    images = [save(tmp_path / f"{i}.png", seed=i) for i in range(3)]
    assert run_predict(*images, "--format", "labels,json")[0] == 0
    (tmp_path / "out/1.json").unlink()
    assert "1 done, 2 were done before" in run_predict(*images, "--format", "labels,json")[1]
    assert len(files(tmp_path / "out")) == 6


def test_files_without_a_line_and_a_line_cut_short_count_for_nothing(run_predict, tmp_path):
    images = [save(tmp_path / f"{i}.png", seed=i) for i in range(3)]
    assert run_predict(*images)[0] == 0
    manifest = tmp_path / "out/manifest.jsonl"
    manifest.write_bytes(manifest.read_bytes()[:-30])
    assert "1 done, 2 were done before" in run_predict(*images)[1]
    assert "0 done, 3 were done before" in run_predict(*images)[1]
    manifest.write_bytes(manifest.read_bytes()[:20])  # killed while it wrote the settings
    assert "3 done, 0 were done before" in run_predict(*images)[1]
    assert "0 done, 3 were done before" in run_predict(*images)[1]


def test_what_killed_runs_were_writing_is_removed(run_predict, tmp_path, monkeypatch):
    images = [save(tmp_path / f"in/{name}.png") for name in ("a", "deep/b")]
    assert run_predict(tmp_path / "in")[0] == 0
    for folder in ("out", "out/deep"):
        (tmp_path / folder / ".0123456789abcdef.partial").write_bytes(b"half a file")
    monkeypatch.setattr("err_seg.utils.files._tidied", set())  # as in a process of its own
    save(images[1], seed=1)
    assert run_predict(tmp_path / "in")[0] == 0
    assert files(tmp_path / "out") == ["a_overlay.png", "deep/b_overlay.png"]


def test_results_named_as_the_manifest_or_the_settings_once_were(run_predict, tmp_path):
    images = [save(tmp_path / name) for name in ("settings.png", "manifest.png", "manifest-1.png")]
    for done in (3, 0):
        status, out, _ = run_predict(*images, "--format", "json,labels")
        assert (status, f"{done} done, {3 - done} were" in out) == (0, True)
    assert {"settings.json", "manifest.json", "manifest-1.json"} <= set(os.listdir(tmp_path / "out"))


def test_folders_of_earlier_and_later_versions(run_predict, tmp_path):
    image = save(tmp_path / "cat.png")
    earlier = {"classes": ["cat"], "format": ["overlay"], "weights": None, "opts": [], "model": "mini"}
    (tmp_path / "out").mkdir()
    (tmp_path / "out/settings.json").write_text(json.dumps(earlier))
    status, _, err = run_predict(image)
    assert status == 3
    assert "earlier version" in err
    assert "--force" in err
    assert os.listdir(tmp_path / "out") == ["settings.json"]
    assert run_predict(image, "--force")[0] == 0
    assert run_predict(image)[0] == 0
    manifest = tmp_path / "out/manifest.jsonl"
    before, after = (f'"err_seg_results": {version}' for version in (RESULT_FORMAT, RESULT_FORMAT + 1))
    manifest.write_text(manifest.read_text().replace(before, after))
    status, _, err = run_predict(image)
    assert (status, f"results in format {RESULT_FORMAT + 1}" in err) == (3, True)


def test_jobs_of_any_number_of_processes_go_on_from_each_other(run_predict, tmp_path, monkeypatch):
    for i in range(12):
        save(tmp_path / f"in/{i:02d}.png", seed=i)

    def job(processes, ranks, *options):
        reports = []
        for rank in ranks:
            monkeypatch.setenv("RANK", str(rank))
            monkeypatch.setenv("WORLD_SIZE", str(processes))
            reports.append(run_predict(tmp_path / "in", *options)[1].splitlines()[-1])
        return reports

    assert job(4, (2, 1, 3)) == ["3 done, 0 were done before, 0 failed"] * 3
    assert job(2, (0, 1)) == ["3 done, 3 were done before, 0 failed", "0 done, 6 were done before, 0 failed"]
    assert job(1, (0,)) == ["0 done, 12 were done before, 0 failed"]
    assert job(2, (1, 0), "--force") == ["6 done, 0 were done before, 0 failed"] * 2
    manifests = sorted(path.name for path in (tmp_path / "out").glob("manifest*"))
    assert manifests == ["manifest-1.jsonl", "manifest.jsonl"]
    assert job(3, (0, 1, 2)) == ["0 done, 4 were done before, 0 failed"] * 3


def test_one_job_at_a_time(run_predict, tmp_path):
    image = save(tmp_path / "cat.png")
    with open_output(tmp_path / "out", {}):
        status, _, err = run_predict(image)
    assert status == 3
    assert "another run is writing to" in err


def test_lines_count_whatever_their_order_and_none_where_they_disagree(tmp_path):
    image = FileContent(save(tmp_path / "a.png"))
    line = {"name": "a", "frame": None, "source": image.path, "signature": None}
    first, second = ({**line, "digest": digest, "version": version} for digest, version in (("0", 1), ("1", 2)))
    third = {**line, "digest": image.digest, "version": 3}
    for order in ((first, second, third), (third, second, first), (second, third, first)):
        with open_output(tmp_path / "out", {}) as manifest:
            manifest.read(json.dumps(part).encode() for part in order)
            place = manifest.place("a", None, image)
            assert (place.version, manifest.is_done(place, [])) == (3, True)
    disagreeing = {**third, "digest": "2"}
    with open_output(tmp_path / "other", {}) as manifest:
        manifest.read(json.dumps(part).encode() for part in (third, disagreeing, third))
        place = manifest.place("a", None, image)
        assert (place.version, manifest.is_done(place, [])) == (4, False)
        manifest.add(place)
        assert manifest.is_done(place, [])


def test_a_kill_between_the_files_of_a_replaced_image_costs_both(tmp_path):
    """The old image may come back: its results are then not those that are there."""
    path = save(tmp_path / "a.png")
    old = path.read_bytes()
    for attempt in range(2):
        with open_output(tmp_path / "out", {}) as manifest:
            place = manifest.place("a", None, FileContent(path))
            assert not manifest.is_done(place, [])
            if attempt == 0:
                manifest.add(place)
        save(path, seed=1)  # the second attempt is killed before it has written all
    path.write_bytes(old)
    with open_output(tmp_path / "out", {}) as manifest:
        assert not manifest.is_done(manifest.place("a", None, FileContent(path)), [])


def test_a_image_that_changes_while_it_is_read_is_a_problem(run_predict, tmp_path, monkeypatch):
    image, other = save(tmp_path / "a.png"), save(tmp_path / "b.png")

    def change(path):
        if path == image:
            save(image, size=(41, 30))
        return err_seg.data.read_masked_image(path)

    monkeypatch.setattr(inputs, "read_masked_image", lambda path, **options: change(path))
    status, out, err = run_predict(image, other)
    assert (status, "a.png: changed while it was read" in err, "1 done" in out) == (1, True, True)


def test_full_disk_is_told_of_when_a_result_is_noted(run_predict, tmp_path, monkeypatch):
    image = save(tmp_path / "a.png")
    assert run_predict(image)[0] == 0
    save(image, seed=1)
    monkeypatch.setattr("err_seg.jobs.manifest.os.write", lambda descriptor, data: len(data) - 1)
    status, _, err = run_predict(image)
    assert status == 3
    assert "No space left" in err
    with pytest.raises(OutputError), open_output(tmp_path / "new", {}):
        pass


@pytest.mark.slow
def test_kills_at_any_moment_cost_nothing_but_time(toy_weights, tmp_path):
    for i in range(60):
        save(tmp_path / f"in/{i:02d}.png", seed=i)
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    script = [sys.executable, REPOSITORY / "tools/predict.py", tmp_path / "in", "--classes", "cat, dog"]
    options = ["--weights", toy_weights, "--device", "cpu", "--format", "labels,json"]

    def start(output):
        return subprocess.Popen(
            [*script, *options, "--output", tmp_path / output], env=environment, stdout=subprocess.PIPE, text=True
        )

    kills = 0
    for at_least in (1, 10, 20, 35, 50):
        process = start("killed")
        while process.poll() is None and len(list((tmp_path / "killed").glob("*_labels.png"))) < at_least:
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        kills += process.wait() == -signal.SIGKILL
        process.communicate()
    assert kills >= 3
    for output in ("killed", "straight"):
        process = start(output)
        assert "0 failed" in process.communicate()[0]
        assert process.returncode == 0
    results = files(tmp_path / "straight")
    assert len(results) == 120
    assert files(tmp_path / "killed") == results
    for name in results:
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "straight" / name).read_bytes()


@pytest.mark.parametrize("kind", ["overlay", "labels", "json", "rle", "polygons", "kept", "masks"])
@pytest.mark.parametrize("content", ["a half", "zeros", "text", "nothing"])
def test_a_result_that_was_overwritten_is_made_again(run_predict, tmp_path, kind, content):
    """It was kept as done, since it was there."""
    for seed in range(2):
        save(tmp_path / f"in/{seed}.png", seed=seed)
    assert run_predict(tmp_path / "in", "--format", kind)[0] == 0
    for name in (name for name in files(tmp_path / "out") if name.startswith("1")):
        path = tmp_path / "out" / name
        written = path.read_bytes()
        rubbish = {"a half": written[: len(written) // 2], "zeros": bytes(len(written)), "text": b"rubbish"}
        path.write_bytes(rubbish.get(content, b""))
        assert "1 done, 1 were done before, 0 failed" in run_predict(tmp_path / "in", "--format", kind)[1], name
        assert path.read_bytes() == written
        assert "0 done, 2 were done before, 0 failed" in run_predict(tmp_path / "in", "--format", kind)[1]


def test_a_result_that_somebody_edited_stays(run_predict, tmp_path):
    image = save(tmp_path / "a.png")
    assert run_predict(image, "--format", "labels,json")[0] == 0
    with Image.open(tmp_path / "out/a_labels.png") as labels:
        labels.transpose(Image.Transpose.ROTATE_180).save(tmp_path / "out/a_labels.png")
    edited = (tmp_path / "out/a_labels.png").read_bytes()
    assert "0 done, 1 were done before" in run_predict(image, "--format", "labels,json")[1]
    assert (tmp_path / "out/a_labels.png").read_bytes() == edited


def test_a_moved_folder_of_results_and_one_of_an_earlier_version_go_on(run_predict, tmp_path, monkeypatch):
    """Results are read then, once; after that their times are known."""
    read = []
    monkeypatch.setattr(
        manifest_module, "is_readable_result", lambda file, check=is_readable_result: read.append(file) or check(file)
    )
    image = save(tmp_path / "a.png")
    assert run_predict(image, "--format", "labels,json")[0] == 0
    assert "0 done, 1 were" in run_predict(image, "--format", "labels,json")[1]
    assert read == []
    shutil.copytree(tmp_path / "out", tmp_path / "copy", copy_function=shutil.copyfile)
    for _ in range(2):
        assert "0 done, 1 were" in run_predict(image, "--format", "labels,json", output=tmp_path / "copy")[1]
        assert [file.name for file in read] == ["a_labels.png", "a.json"]
    manifest = tmp_path / "out/manifest.jsonl"
    settings, line, *_ = map(json.loads, manifest.read_text().splitlines())
    assert line.pop("files").keys() == {"a_labels.png", "a.json"}
    manifest.write_text(f"{json.dumps(settings)}\n{json.dumps(line)}\n")
    assert "0 done, 1 were" in run_predict(image, "--format", "labels,json")[1]
    (tmp_path / "out/a.json").write_text("rubbish")
    assert "1 done, 0 were" in run_predict(image, "--format", "labels,json")[1]


@pytest.mark.parametrize(
    "rubbish", [b"\x00\xff\n", b"[]\n", b'{"err_seg_results": 1, "settings": []}\n', b"[" * 99_999]
)
def test_a_manifest_that_was_overwritten_counts_for_nothing(run_predict, tmp_path, rubbish):
    image = save(tmp_path / "a.png")
    assert run_predict(image)[0] == 0
    manifest = tmp_path / "out/manifest.jsonl"
    lines = manifest.read_bytes().splitlines(keepends=True)
    manifest.write_bytes(rubbish)
    assert "1 done, 0 were" in run_predict(image)[1]
    manifest.write_bytes(lines[0] + rubbish + b"\n" + lines[1])
    assert "0 done, 1 were" in run_predict(image)[1]


def test_code_of_a_package_that_changed_makes_another_job(toy, package, tmp_path):
    arguments = parse_arguments(["photo.png", "--classes", "cat", "--output", str(tmp_path)])
    model, label_set = toy, parse_label_set(("cat",))
    found = []
    for text in ("WIDTH = 8", "WIDTH = 16"):
        package("own_part", text)
        import_packages(["own_part"])
        model.settings = {**model.settings, "MODEL.IMPORTS": ["own_part"]}
        found.append(settings_of(arguments, label_set, Contrast(), model))
    assert found[0]["packages"].keys() == {"own_part"}
    assert found[0]["packages"] != found[1]["packages"]
    model.settings = {**model.settings, "MODEL.IMPORTS": []}
    assert "packages" not in settings_of(arguments, label_set, Contrast(), model)
