"""err-seg predict --format features: embeddings for other programs, with or without classes."""

import json

import numpy as np
import pytest
import torch
from safetensors import safe_open

from err_seg.utils.fingerprint import weights_digest
from tests.helpers.predicting import files, save

WITHOUT_CLASSES = "has no classes: no --background, --contrast, --num-kept or --refine"


@pytest.fixture
def images(tmp_path):
    for number in range(3):
        save(tmp_path / f"images/{'abc'[number]}.png", size=(40 + number, 30), seed=number)
    return tmp_path / "images"


def read(file):
    """Return the features in a file and its metadata."""
    with safe_open(file, framework="numpy") as stored:
        assert list(stored.keys()) == ["features"]
        return stored.get_tensor("features"), stored.metadata()


def test_features_need_no_classes_and_no_head(run_predict, images, tmp_path, toy, monkeypatch):
    def fail(*_, **__):
        raise AssertionError("the head is not needed")

    monkeypatch.setattr(toy.head, "forward", fail)
    runs = []
    with toy.encoder.register_forward_hook(lambda *_: runs.append(1)):
        status, out, _ = run_predict(images, "--format", "features", "--batch-size", "2", classes=None)
    assert (status, len(runs)) == (0, 2)
    assert "3 done, 0 were done before, 0 failed" in out
    assert "none of these" not in out
    assert files(tmp_path / "out") == ["a.safetensors", "b.safetensors", "c.safetensors"]
    for number, name in enumerate("abc"):
        features, facts = read(tmp_path / f"out/{name}.safetensors")
        expected = toy.features(images / f"{name}.png")
        assert features.dtype == np.float16
        np.testing.assert_allclose(features, expected.embeddings.numpy(), rtol=0, atol=1e-3)
        assert json.loads(facts["size"]) == [30, 40 + number]
        assert json.loads(facts["stride"]) == list(expected.stride)
        assert facts["weights"] == weights_digest(toy)


def test_beside_other_formats(run_predict, images, tmp_path):
    """They are the same as alone, and labels the same as without them."""
    assert run_predict(images, "--format", "labels")[0] == 0
    labels = (tmp_path / "out/b_labels.png").read_bytes()
    assert run_predict(images, "--format", "features", classes=None, output=tmp_path / "alone")[0] == 0
    assert run_predict(images, "--format", "features,labels", output=tmp_path / "both")[0] == 0
    assert (tmp_path / "both/b_labels.png").read_bytes() == labels
    assert np.array_equal(read(tmp_path / "both/b.safetensors")[0], read(tmp_path / "alone/b.safetensors")[0])


def test_an_interrupted_job_goes_on(run_predict, images, tmp_path):
    run = ("--format", "features")
    assert run_predict(images, *run, classes=None)[0] == 0
    file = tmp_path / "out/b.safetensors"
    content, (features, facts) = file.read_bytes(), read(file)
    (tmp_path / "out/a.safetensors").unlink()
    file.write_bytes(content[:-100])
    status, out, _ = run_predict(images, *run, classes=None)
    assert (status, "2 done, 1 were done before" in out) == (0, True)
    assert np.array_equal(read(file)[0], features)
    assert read(file)[1] == facts
    file.write_bytes(content)  # a copy keeps what it holds, and its time is another
    assert "0 done, 3 were done before" in run_predict(images, *run, classes=None)[1]


def test_other_weights_are_other_results(run_predict, images, toy):
    assert run_predict(images, "--format", "features", classes=None)[0] == 0
    bias = toy.head.gud.head.bias
    with torch.no_grad():
        bias += 1
    try:
        status, _, errors = run_predict(images, "--format", "features", classes=None)
    finally:
        with torch.no_grad():
            bias -= 1
    assert (status, "weights is" in errors) == (3, True)


@pytest.mark.parametrize(
    ("options", "classes", "message"),
    [
        (("--format", "features"), "cat", "alone needs none: leave them out"),
        (("--format", "features,labels"), None, "give --classes, --classes-file or --examples"),
        ((), None, "give --classes, --classes-file or --examples"),
        (("--format", "features", "--background", "0.3"), None, WITHOUT_CLASSES),
        (("--format", "features", "--refine"), None, WITHOUT_CLASSES),
        (("--format", "features", "--contrast", "none"), None, WITHOUT_CLASSES),
        (("--format", "features", "--num-kept", "2"), None, WITHOUT_CLASSES),
        (("--format", "features,labels", "--tile", "auto"), "cat", "leave out --smooth and --tile"),
        (("--format", "features", "--smooth", "1"), None, "leave out --smooth"),
    ],
)
def test_options_that_do_not_fit(run_predict, images, tmp_path, options, classes, message):
    status, _, errors = run_predict(images, *options, classes=classes)
    assert (status, message in errors) == (2, True), errors
    assert not (tmp_path / "out").exists()
