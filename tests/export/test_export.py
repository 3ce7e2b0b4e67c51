"""Exported files compute what the network computes, for pictures and vocabularies that were not traced."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import REPOSITORY, VOCABULARY
from PIL import Image

from err_seg.export import (
    ExportableERRSeg,
    ExportError,
    check_onnx,
    check_program,
    export_onnx,
    export_program,
    save_vocabulary,
)
from err_seg.export.network import example_inputs
from err_seg.export.parity import compare
from tools import export


@pytest.fixture
def model(toy_model):
    return toy_model().eval()


def test_function_of_tensors_equals_the_network(model):
    network = ExportableERRSeg(model).eval()

    def run(*inputs):
        with torch.no_grad():
            return tuple(output.numpy() for output in network(*inputs))

    parity = compare(model, run)
    assert parity.holds
    assert parity.largest_difference < 1e-5

    def wrong(*inputs):
        probabilities, kept = run(*inputs)
        return probabilities + 0.01, kept

    assert not compare(model, wrong).holds


@pytest.mark.slow
def test_program(model, tmp_path):
    export_program(model, tmp_path / "net.pt2")
    assert check_program(model, tmp_path / "net.pt2").holds
    with torch.no_grad():
        model.gud.head.bias += 1
    assert not check_program(model, tmp_path / "net.pt2").holds


def test_needs_evaluation_mode(toy_model, tmp_path):
    with pytest.raises(ExportError, match="evaluation mode"):
        export_program(toy_model().train(), tmp_path / "net.pt2")
    assert not list(tmp_path.iterdir())


def test_vocabulary_file(model, tmp_path):
    save_vocabulary(model, VOCABULARY, tmp_path / "words.npz")
    file = np.load(tmp_path / "words.npz")  # without pickle
    assert tuple(file["names"]) == VOCABULARY
    np.testing.assert_allclose(file["text"], model.embed_vocabulary(VOCABULARY).numpy())


def test_command_refuses_other_endings(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr("sys.argv", ["export.py", str(tmp_path / "net.tflite")])
    assert export.main() == 2
    assert ".onnx, .pt2" in capsys.readouterr().err


@pytest.mark.slow
def test_onnx_and_the_example(model, tmp_path, monkeypatch, capsys):
    for library in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(library)
    export_onnx(model, tmp_path / "net.onnx")
    assert check_onnx(model, tmp_path / "net.onnx").holds

    image, _, _ = example_inputs(model, 5, 2)
    photo = image[0].permute(1, 2, 0).byte().numpy()
    Image.fromarray(photo).save(tmp_path / "photo.png")
    save_vocabulary(model, VOCABULARY, tmp_path / "net.npz")
    script = REPOSITORY / "examples/run_exported.py"
    command = [sys.executable, script, "net.onnx", "net.npz", "photo.png"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    labels = np.asarray(Image.open(tmp_path / "labels.png"))
    assert (labels == model.predict([photo], VOCABULARY)[0].labels.numpy()).mean() > 0.99
