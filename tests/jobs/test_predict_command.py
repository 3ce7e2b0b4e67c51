"""tools/predict.py: every kind of input, every kind of trouble, and the exit status for each."""

import io
import json
import os
import re
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from PIL import Image

from err_seg.data import load_vocabulary
from err_seg.data.images import read_label as load_label_png
from err_seg.jobs import formats as formats_module
from err_seg.jobs.label_set import UNLABELED, LabelSet, parse_label_set
from err_seg.utils.files import atomic_write
from err_seg.utils.ordered_map import TimeShare
from err_seg.visualization.colors import hex_color, oklab
from tests.helpers.predicting import files, save
from tests.helpers.rle import labels_from_rle, load_rle_json
from tests.helpers.toy import REPOSITORY, VOCABULARY


def test_all_formats_agree(run_predict, tmp_path, toy):
    image = save(tmp_path / "cat.png")
    status, out, _ = run_predict(image, "--format", "overlay,labels,json,rle,kept,attention", "--num-kept", 2)
    assert status == 0
    names = ["_attention.png", "_kept.png", "_labels.png", "_overlay.png", "_rle.json", ".json"]
    assert files(tmp_path / "out") == sorted(f"cat{name}" for name in names)

    expected = toy.predict([image], ["cat", "dog", "grass"], num_kept=2)[0].labels.numpy()
    np.testing.assert_array_equal(load_label_png(tmp_path / "out/cat_labels.png"), expected)
    np.testing.assert_array_equal(labels_from_rle(load_rle_json(tmp_path / "out/cat_rle.json")), expected)
    facts = json.loads((tmp_path / "out/cat.json").read_text())
    assert facts["size"] == [30, 40]
    assert {row["label"]: row["pixels"] for row in facts["classes"]} == {
        int(label): int((expected == label).sum()) for label in np.unique(expected)
    }
    assert len(facts["kept"]) == 2
    assert len(facts["weights"]["sha256"]) == 64
    assert "1 done" in out


def test_vocabularies_by_name_and_colours_of_their_own(run_predict, tmp_path):
    image, words = save(tmp_path / "cat.png"), tmp_path / "words.yaml"
    written = "- {name: cat, color: [1, 2, 3]}\n- {name: dog, color: '#040506'}\n- {name: grass, color: [7, 8, 9]}"
    words.write_text(written)
    status, _, _ = run_predict(image, "--classes-file", words, "--format", "labels,html", classes=None)
    assert status == 0
    palette = Image.open(tmp_path / "out/cat_labels.png").getpalette()
    assert palette[:9] == list(range(1, 10))
    page = (tmp_path / "out/index.html").read_text(encoding="utf-8")
    assert '{"cat": "#010203", "dog": "#040506", "grass": "#070809"}' in page
    words.write_text(written.replace("[1, 2, 3]", "[1, 2, 4]"))
    status, _, err = run_predict(image, "--classes-file", words, "--format", "labels,html", classes=None)
    assert (status, "other settings (colors" in err) == (3, True)
    status, _, _ = run_predict(image, "--format", "json", classes="robot, voc20, cat", output=tmp_path / "voc")
    (line, *_) = (tmp_path / "voc/manifest.jsonl").read_text().splitlines()
    assert status == 0
    assert json.loads(line)["settings"]["classes"] == ["robot", *load_vocabulary("voc20")]


def test_few_words_have_colours_far_apart_in_all_files_of_a_job(run_predict, tmp_path):
    """Three of these four were blue. The list alone decides, so that each image and process has the same."""
    words = ["pillow", "river", "apple", "tree"]
    for number in range(2):
        save(tmp_path / f"in/{number}.png")
    assert run_predict(tmp_path / "in", "--format", "labels,html", classes=", ".join(words))[0] == 0
    palettes = [Image.open(tmp_path / f"out/{number}_labels.png").getpalette()[:12] for number in range(2)]
    colors = np.array(palettes[0], dtype=np.uint8).reshape(4, 3)
    distances = np.linalg.norm(oklab(colors)[:, None] - oklab(colors), axis=2) + np.eye(4)
    assert distances.min() > 0.22
    assert palettes[0] == palettes[1]
    page = (tmp_path / "out/index.html").read_text(encoding="utf-8")
    assert json.dumps({word: hex_color(color) for word, color in zip(words, colors, strict=True)}) in page


def test_folders_globs_stdin_and_equal_names(run_predict, tmp_path, monkeypatch):
    for name in ("in/a.png", "in/deep/a.png", "in/deep/a.jpg", "in/.hidden/b.png", "more/c1.png", "more/c2.png"):
        save(tmp_path / name)
    (tmp_path / "in/notes.txt").write_text("not an image, and not asked for by name")
    stream = io.BytesIO((tmp_path / "in/a.png").read_bytes())
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(stream))
    status, _, _ = run_predict(tmp_path / "in", tmp_path / "more/c*.png", "-", "--format", "labels", "--batch-size", 4)
    assert status == 0
    names = ["a", "deep/a.jpg", "deep/a.png", "c1", "c2", "stdin"]
    assert files(tmp_path / "out") == sorted(f"{name}_labels.png" for name in names)


def test_trouble_is_reported_and_the_rest_done(run_predict, tmp_path):
    good = [save(tmp_path / name) for name in ("1.png", "9.png")]
    (tmp_path / "2.jpg").write_text("this is text")
    save(tmp_path / "whole.jpg", size=(200, 200))
    (tmp_path / "3.jpg").write_bytes((tmp_path / "whole.jpg").read_bytes()[:3000])
    (tmp_path / "4.png").write_bytes(b"")
    bad = [tmp_path / name for name in ("2.jpg", "3.jpg", "4.png", "missing.png")]
    for attempt in range(2):
        status, out, err = run_predict(*good, *bad, tmp_path / "no*.tif", "--batch-size", 3)
        assert status == 1
        lines = err.strip().splitlines()
        assert len(lines) == 5
        for line, word in zip(
            lines, ("missing.png: no such", "tif: no such", "not an image", "cut short", "empty"), strict=True
        ):
            assert line.startswith("error: ")
            assert word in line
        assert files(tmp_path / "out") == ["1_overlay.png", "9_overlay.png"]
        assert out.strip().endswith(
            ("2 done, 0 were done before, 5 failed", "0 done, 2 were done before, 5 failed")[attempt]
        )


@pytest.mark.parametrize("size", [(1, 1), (20000, 10), (10, 20000)])
def test_extreme_sizes(run_predict, tmp_path, size):
    status, _, _ = run_predict(save(tmp_path / "p.png", size), "--format", "overlay,labels,json,rle,kept")
    assert status == 0
    assert load_label_png(tmp_path / "out/p_labels.png").shape == size[::-1]
    with Image.open(tmp_path / "out/p_overlay.png") as image:
        assert image.width >= size[0]
        assert image.height >= size[1]


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ("", "no class names"),
        (" , ;", "no class names"),
        ("cat, dog, cat", "more than once"),
        ("word " * 500, "exceed the 77 tokens"),
    ],
)
def test_words_that_cannot_be_used(run_predict, tmp_path, classes, message):
    status, _, err = run_predict(save(tmp_path / "p.png"), classes=classes)
    assert status == 2
    assert message in err
    assert len(err.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("background", ["", " , "])
def test_a_background_of_nothing(run_predict, tmp_path, background):
    status, _, err = run_predict(save(tmp_path / "p.png"), "--background", background)
    assert (status, "is neither names nor a probability" in err) == (2, True)


def test_brackets_and_colons_are_printed_as_they_are(run_predict, tmp_path):
    words, output = "[/x] cat; [red] dog[/]; :cat:", tmp_path / "out [/b]"
    status, out, _ = run_predict(save(tmp_path / "p.png"), "--num-kept", 3, classes=words, output=output)
    assert status == 0
    assert [word for word in words.split("; ") if f" {word} " in out] == words.split("; ")
    assert "[/b]" in out


def test_many_classes_in_any_script(run_predict, tmp_path):
    names = [*(f"thing {i}" for i in range(497)), "🐱 cat", "猫", "кошка"]
    (tmp_path / "names.txt").write_text("\n".join(names), encoding="utf-8")
    options = ("--classes-file", tmp_path / "names.txt", "--format", "labels,json,overlay")
    assert run_predict(save(tmp_path / "p.png"), *options, classes=None)[0] == 0
    assert load_label_png(tmp_path / "out/p_labels.png").dtype == np.uint16


def test_none_of_these(run_predict, tmp_path):
    image = save(tmp_path / "p.png")
    options = ("--format", "labels,json,rle,overlay")
    assert run_predict(image, *options, "--background", "1.0")[0] == 0
    assert (load_label_png(tmp_path / "out/p_labels.png") == 255).all()
    assert json.loads((tmp_path / "out/p.json").read_text())["nothing"]["share"] == 1
    assert load_rle_json(tmp_path / "out/p_rle.json") == []
    status, _, err = run_predict(image, "--background", "1.5")
    assert (status, "1.5" in err) == (2, True)


def test_output_of_other_settings_is_not_mixed(run_predict, tmp_path):
    image = save(tmp_path / "p.png")
    assert run_predict(image)[0] == 0
    status, _, err = run_predict(image, classes="cat, sky")
    assert status == 3
    assert "classes" in err
    assert "--force" in err
    before = (tmp_path / "out/p_overlay.png").stat().st_mtime_ns
    assert run_predict(image, "--force", classes="cat, sky")[0] == 0
    assert (tmp_path / "out/p_overlay.png").stat().st_mtime_ns > before


def test_results_inside_the_input_folder_are_no_input(run_predict, tmp_path):
    save(tmp_path / "in/p.png")
    for _ in range(2):
        assert run_predict(tmp_path / "in", output=tmp_path / "in/out")[0] == 0
    assert files(tmp_path / "in/out") == ["p_overlay.png"]


def test_output_that_cannot_be_written(run_predict, tmp_path):
    image = save(tmp_path / "p.png")
    (tmp_path / "file").write_text("in the way")
    status, _, err = run_predict(image, output=tmp_path / "file/out")
    assert status == 3
    assert str(tmp_path / "file/out") in err


def test_full_disk_leaves_nothing_half_written(run_predict, tmp_path, monkeypatch):
    images = [save(tmp_path / f"{i}.png") for i in range(4)]
    write = formats_module.FORMATS["labels"][1]

    def fill_up(result, path):
        if result.name == "2":
            with atomic_write(path) as partial:
                partial.write_bytes(b"half a file")
                raise OSError(28, os.strerror(28))
        write(result, path)

    with monkeypatch.context() as patch:
        patch.setitem(formats_module.FORMATS, "labels", ("_labels.png", fill_up))
        status, _, err = run_predict(*images, "--format", "labels")
    assert status == 3
    assert "No space left on device" in err
    assert len(err.strip().splitlines()) == 1
    assert "2_labels.png" not in files(tmp_path / "out")
    assert not list((tmp_path / "out").glob(".*"))
    assert run_predict(*images, "--format", "labels")[0] == 0
    assert len(files(tmp_path / "out")) == 4


def test_pixels_are_labelled_while_the_network_works_and_its_share_is_told(run_predict, toy, tmp_path, monkeypatch):
    for i in range(4):
        save(tmp_path / f"in/{i}.png")
    predict, labels, labelled = toy.predict, LabelSet.labels, threading.Event()

    def label(words, result):
        labelled.set()
        return labels(words, result)

    def wait_and_predict(images, *arguments, **options):
        seen.append(None)
        assert len(seen) < 2 or labelled.wait(10), "the first image's labels must not wait for the second"
        return predict(images, *arguments, **options)

    seen = []
    monkeypatch.setattr(LabelSet, "labels", label)
    monkeypatch.setattr(toy, "predict", wait_and_predict)
    status, out, _ = run_predict(tmp_path / "in")
    assert (status, "4 done" in out) == (0, True)
    assert re.search(r"the network took \d+% of \d+\.\d s", out)


def test_processes_share_the_images_out(run_predict, tmp_path, monkeypatch):
    for i in range(7):
        save(tmp_path / f"in/{i}.png")
    written = []
    for rank in (1, 0, 2):
        monkeypatch.setenv("RANK", str(rank))
        monkeypatch.setenv("WORLD_SIZE", "3")
        assert run_predict(tmp_path / "in", "--format", "labels")[0] == 0
        written.append(set(files(tmp_path / "out")))
    assert written[0] == {"1_labels.png", "4_labels.png"}
    assert written[2] == {f"{i}_labels.png" for i in range(7)}


def test_background_words_become_nothing(toy, images):
    words = parse_label_set(VOCABULARY, ["traffic light, wall", "0.0"])
    assert words.vocabulary == ("cat", "grass", "sky", "tree", "dog", "sofa, couch", "traffic light", "wall")
    result = toy.predict(images[:1], words.vocabulary)[0]
    labels, plain = words.labels(result), result.labels.numpy().astype(int)
    assert (plain == 6).any()
    np.testing.assert_array_equal(labels, np.where(plain >= 6, UNLABELED, plain))


@pytest.mark.slow
def test_two_real_processes_wait_for_each_other(toy_weights, tmp_path):
    """A launcher ends all processes when one leaves with an error: none may do so before all are done."""
    for i in range(8):
        save(tmp_path / f"in/{i}.png")
    (tmp_path / "in/0.png").write_text("text")
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    script = [REPOSITORY / "tools/predict.py", tmp_path / "in", "--classes", "cat, dog", "--weights", toy_weights]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    command = [*launcher, *script, "--output", tmp_path / "out", "--device", "cpu"]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert "7 done, 0 were done before, 1 failed" in result.stdout
    assert "0.png: is not an image" in result.stderr
    assert len(files(tmp_path / "out")) == 7


def test_the_networks_share_is_that_of_the_bare_network(run_predict, toy, tmp_path, monkeypatch):
    """What is printed is the time within the network, here mostly a wait, without that for labels."""
    for i in range(3):
        save(tmp_path / f"in/{i}.png")
    bare, starts = [], []

    def begin(*_):
        starts.append(time.perf_counter())
        time.sleep(0.3)

    hooks = [
        toy.encoder.register_forward_pre_hook(begin),
        toy.head.gud.register_forward_hook(lambda *_: bare.append(time.perf_counter() - starts[-1])),
    ]
    shares = []
    monkeypatch.setattr(TimeShare, "__str__", lambda self: shares.append(self) or "measured")
    labels = LabelSet.labels
    monkeypatch.setattr(LabelSet, "labels", lambda *args: (time.sleep(0.3), labels(*args))[1])
    status, out, _ = run_predict(tmp_path / "in")
    for hook in hooks:
        hook.remove()
    assert status == 0
    assert "the network took measured" in out
    assert len(bare) == 3
    assert sum(bare) <= shares[0].work < sum(bare) + 0.3, "not the 0.9 s of labels as well"
    assert shares[0].work < shares[0].whole
