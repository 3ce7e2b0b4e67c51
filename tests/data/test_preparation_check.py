"""The check of converted label maps: sound ones are counted, others named."""

import json

import numpy as np
import pytest
from PIL import Image

from err_seg.data.preparation.conversions import CONVERSIONS
from tests.helpers.preparation import (
    CONVERTED,
    MAKERS,
    files,
    make_ade150,
    make_context,
    make_voc,
    prepare,
    save_image,
    save_label,
)


@pytest.mark.parametrize("name", CONVERSIONS)
def test_check_passes_and_counts_classes(tmp_path, name, capsys):
    MAKERS[name](tmp_path)
    assert prepare(tmp_path, name) == 0
    before = files(tmp_path)
    assert prepare(tmp_path, name, "--check") == 0
    written = {path: content for path, content in files(tmp_path).items() if path not in before}
    (path,) = written
    assert path.endswith(f"{name}_check.json")
    assert str(tmp_path / path) in capsys.readouterr().out
    split = json.loads(written[path])["splits"][-1]
    spec = CONVERSIONS[name].splits[-1].spec
    assert [entry["name"] for entry in split["classes"]] == list(spec.evaluated_classes)
    (_, label_path), *others = CONVERSIONS[name].splits[-1].list_converted(tmp_path)
    assert not others
    label = np.asarray(Image.open(label_path))
    assert [entry["pixels"] for entry in split["classes"]] == [(label == k).sum() for k in range(len(split["classes"]))]
    assert split["ignored_pixels"] == (label == spec.ignore_label).sum()


@pytest.mark.parametrize(
    ("label", "complaint"),
    [
        (
            np.full((2, 3), 459, np.uint16),
            "no class (459); expected 0 to 458, or 65535 where ignored; some trees made for",
        ),
        (np.full((2, 3), 460, np.uint16), "no class (460); expected 0 to 458, or 65535 where ignored; write it again"),
        (np.zeros((2, 4), np.uint16), "4x2"),
        (np.zeros((2, 3), np.uint8), "expected uint16 values, found uint8"),
    ],
)
def test_check_finds_wrong_labels(tmp_path, capsys, label, complaint):
    make_context(tmp_path)
    assert prepare(tmp_path, "pc459") == 0
    path = tmp_path / CONVERTED["pc459"][0]
    Image.fromarray(label).save(path)
    assert prepare(tmp_path, "pc459", "--check") == 1
    message = capsys.readouterr().err
    assert str(path) in message
    assert complaint in message
    assert prepare(tmp_path, "pc459", "--force") == 0
    assert prepare(tmp_path, "pc459", "--check") == 0, "what the message says to do helps"


def test_check_shows_the_largest_classes_and_the_first_errors_and_writes_all(tmp_path, capsys):
    every_class = np.repeat(np.arange(1, 151), np.arange(1, 151))[None]
    make_ade150(tmp_path)
    base = tmp_path / "ADEChallengeData2016"
    save_image(base / "images/validation/ADE_val_1.jpg", every_class.shape)
    save_label(base / "annotations/validation/ADE_val_1.png", every_class)
    assert prepare(tmp_path, "ade150") == 0
    converted = base / "annotations_detectron2"
    for index in range(30):
        (converted / f"validation/ADE_val_9{index:02}.png").write_bytes(b"")
    capsys.readouterr()
    assert prepare(tmp_path, "ade150", "--check") == 1
    captured = capsys.readouterr()
    assert "150 of 150 classes occur; 0.0% of 11,325 pixels are ignored" in captured.out
    assert "and 130 more" in captured.out
    shown = [line.split()[1] for line in captured.out.splitlines() if line.startswith("| ")][1:]
    assert shown == [str(index) for index in range(149, 129, -1)]
    assert sum("ADE_val_9" in line for line in captured.err.splitlines()) == 20
    assert "10 more label maps with errors" in captured.err
    (split,) = json.loads((converted / "ade150_check.json").read_text())["splits"]
    assert [entry["pixels"] for entry in split["classes"]] == list(range(1, 151))
    assert len(split["problems"]) == 30


def test_check_before_conversion(tmp_path, capsys):
    make_voc(tmp_path)
    assert prepare(tmp_path, "voc20", "--check") == 1
    assert "no converted label maps" in capsys.readouterr().err
