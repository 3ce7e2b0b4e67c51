"""Exported files compute what the network computes, for images and vocabularies that were not traced."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image

from err_seg.commands import export, models
from err_seg.export import (
    ExportableERRSeg,
    ExportError,
    check_facts,
    check_onnx,
    check_program,
    export_onnx,
    export_program,
    save_vocabulary,
)
from err_seg.export.exporting import facts
from err_seg.export.network import example_inputs
from err_seg.export.parity import compare
from err_seg.models.checkpoint import save_weights
from err_seg.prediction import contrast
from err_seg.text.prompts import VocabularyError
from err_seg.utils.files import file_sha256
from err_seg.utils.fingerprint import weights_digest
from tests.helpers.toy import REPOSITORY, VOCABULARY


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
    assert 0.1 < parity.time_ratio < 10

    def wrong(*inputs):
        probabilities, kept = run(*inputs)
        return probabilities + 0.01, kept

    assert not compare(model, wrong).holds


@pytest.fixture
def adaptive(toy_model):
    """A network that keeps as many classes as an image needs; as many of all as asked for, and fewer."""
    return toy_model("MODEL.CRM.MIN_SCORE", 0.08).eval()


def test_as_many_classes_as_needed(adaptive):
    network, numbers = ExportableERRSeg(adaptive).eval(), []

    def run(*inputs):
        with torch.no_grad():
            probabilities, kept = network(*inputs)
        numbers.append((kept.shape[1], len(inputs[2])))
        return probabilities.numpy(), kept.numpy()

    assert compare(adaptive, run).holds
    assert any(kept < most for kept, most in numbers)
    assert facts(adaptive)["min_score"] == 0.08


@pytest.mark.slow
@pytest.mark.parametrize("ending", ["pt2", "onnx"])
def test_as_many_classes_as_needed_in_a_file(adaptive, tmp_path, ending):
    if ending == "onnx":
        for library in ("onnx", "onnxscript", "onnxruntime"):
            pytest.importorskip(library)
    write, check = {"pt2": (export_program, check_program), "onnx": (export_onnx, check_onnx)}[ending]
    write(adaptive, tmp_path / f"net.{ending}")
    assert check(adaptive, tmp_path / f"net.{ending}").holds


def test_a_number_of_classes_by_need_is_not_compiled(adaptive, tmp_path):
    with pytest.raises(ExportError, match=r"--opts MODEL\.CRM\.MIN_SCORE 0"):
        export_program(adaptive, tmp_path / "net.pt2", compiled=True)
    assert not list(tmp_path.iterdir())


def test_any_number_of_images(model):
    image, text, ranks = example_inputs(model, 9, 3)
    with torch.no_grad():
        probabilities, kept = ExportableERRSeg(model).eval()(image[[0, 1, 0]], text, ranks)
        alone, its_kept = ExportableERRSeg(model).eval()(image[:1], text, ranks)
    assert probabilities.shape[:2] == kept.shape == (3, 3)
    for row in (0, 2):
        assert torch.equal(kept[row], its_kept[0])
        torch.testing.assert_close(probabilities[row], alone[0], rtol=0, atol=1e-5)


@pytest.mark.slow
def test_program(model, tmp_path):
    export_program(model, tmp_path / "net.pt2")
    assert check_program(model, tmp_path / "net.pt2").holds
    with torch.no_grad():
        model.head.gud.head.bias += 1
    assert not check_program(model, tmp_path / "net.pt2").holds


@pytest.mark.slow
@pytest.mark.parametrize("compiled", [False, True])
def test_a_program_runs_without_this_package(model, tmp_path, compiled):
    """Free words, sizes, numbers of images and K, in a process where ``import err_seg`` fails."""
    if compiled and shutil.which("g++") is None:
        pytest.skip("AOTInductor needs a C++ compiler")
    export_program(model, tmp_path / "net.pt2", compiled=compiled)
    parity = check_program(model, tmp_path / "net.pt2", compiled=compiled)
    assert parity.holds
    assert parity.largest_difference < 1e-4
    now, other = ("cpu", "none") if compiled else ("none", "cpu")
    check_facts(model, tmp_path / "net.pt2", compiled_for=now)
    with pytest.raises(ExportError, match=f"compiled_for is {other} now and was {now}"):
        check_facts(model, tmp_path / "net.pt2", compiled_for=other)

    photo = np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    Image.fromarray(photo).save(tmp_path / "photo.png")
    save_vocabulary(model, VOCABULARY, tmp_path / "net.npz")
    (tmp_path / "err_seg").mkdir()
    (tmp_path / "err_seg/__init__.py").write_text("raise ImportError")
    command = [sys.executable, REPOSITORY / "examples/run_exported.py", "net.pt2", "net.npz", "photo.png"]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    labels = np.asarray(Image.open(tmp_path / "labels.png"))
    assert (labels == model.predict([photo], VOCABULARY)[0].labels.numpy()).mean() > 0.99


def test_only_programs_are_compiled(capsys, tmp_path):
    with pytest.raises(SystemExit):
        export.main([str(tmp_path / "net.onnx"), "--compiled"])
    assert "--compiled writes .pt2 files" in capsys.readouterr().err


def test_needs_evaluation_mode(toy_model, tmp_path):
    with pytest.raises(ExportError, match="evaluation mode"):
        export_program(toy_model().train(), tmp_path / "net.pt2")
    assert not list(tmp_path.iterdir())


def test_vocabulary_file(model, tmp_path):
    save_vocabulary(model, VOCABULARY, tmp_path / "words.npz")
    file = np.load(tmp_path / "words.npz")  # without pickle
    assert tuple(file["names"]) == VOCABULARY
    np.testing.assert_allclose(file["text"], model.embed_vocabulary(VOCABULARY).numpy())


@pytest.fixture
def different_words(monkeypatch):
    """Let all words mean something else, whatever a toy's text tower says."""
    monkeypatch.setattr(contrast, "SAME_MEANING", 2.0)


def test_words_and_contrast_words_in_a_file(model, different_words, tmp_path):
    save_vocabulary(model, VOCABULARY[:1], tmp_path / "words.npz", contrast=VOCABULARY[:4])  # but for the word itself
    file = np.load(tmp_path / "words.npz")
    assert (tuple(file["names"]), tuple(file["contrast"])) == (VOCABULARY[:1], VOCABULARY[1:4])
    np.testing.assert_allclose(file["text"], model.embed_vocabulary(VOCABULARY[:4]).numpy(), atol=1e-6)
    with pytest.raises(VocabularyError):
        save_vocabulary(model, (), tmp_path / "none.npz")
    assert not (tmp_path / "none.npz").exists()


@pytest.mark.parametrize("min_score", [0.0, 0.08])
@pytest.mark.parametrize(("num_classes", "num_kept"), [(1, 1), (2, 1), (2, 2), (3, 2), (40, 12)])
def test_any_number_of_classes_bit_for_bit(toy_model, num_classes, num_kept, min_score):
    """Fillers take the ranks that classes leave, and nothing else."""
    model = toy_model("MODEL.CRM.MIN_SCORE", min_score).eval()
    image, text, ranks = example_inputs(model, num_classes, num_kept)
    with torch.no_grad():
        probabilities, kept = ExportableERRSeg(model).eval()(image, text, ranks)
        expected = model(model.preprocess(image), text, num_kept)
    assert torch.equal(kept, expected.kept)
    assert torch.equal(probabilities, expected.logits.sigmoid())


def test_a_file_of_an_earlier_version_is_recognised(model, tmp_path):
    """It takes three classes or more, which words for this version may not be."""
    file = tmp_path / "net.pt2"
    for changed, matches in (({}, True), ({"fewest_classes": 3}, False)):
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("net/extra/err_seg.json", json.dumps({**facts(model), **changed}))
        with nullcontext() if matches else pytest.raises(ExportError, match="fewest_classes is 1 now and was 3"):
            check_facts(model, file)


def test_a_file_says_where_the_weights_came_from(toy_model, tmp_path):
    save_weights(toy_model(), tmp_path / "w.safetensors")
    model = toy_model("MODEL.WEIGHTS", str(tmp_path / "w.safetensors"))
    assert facts(model)["source"] == f"{tmp_path / 'w.safetensors'}, SHA-256 {file_sha256(tmp_path / 'w.safetensors')}"


@pytest.fixture
def command(model, monkeypatch, capsys):
    """Return a function that runs err-seg export with a model; gives exit status and error output."""

    def run(file, *arguments, model=model):
        monkeypatch.setattr(models, "load_model", lambda _: model)
        monkeypatch.setattr("sys.argv", ["export.py", str(file), *arguments])
        return export.main(), capsys.readouterr().err

    return run


@pytest.mark.slow
@pytest.mark.parametrize("ending", [".onnx", ".pt2"])
def test_words_of_other_weights_are_not_put_beside_a_network(command, model, toy_model, tmp_path, ending):
    if ending == ".onnx":
        for library in ("onnx", "onnxscript", "onnxruntime"):
            pytest.importorskip(library)
    file, words = tmp_path / f"net{ending}", tmp_path / "net.npz"
    assert command(file, "--classes", "cat, dog, sky") == (0, "")
    assert command(file, "--classes", "cat, dog, sky, grass") == (0, "")
    assert len(np.load(words)["names"]) == 4
    before = words.read_bytes(), file.read_bytes()
    other, wider = toy_model().eval(), toy_model("INPUT.SIZE", 96).eval()
    with torch.no_grad():
        other.head.gud.head.bias += 1
    for network, key in ((other, "weights is"), (wider, "size is 96 now and was 64")):
        status, error = command(file, "--classes", "cat, dog, sky", model=network)
        assert status == 2
        assert key in error
        assert "--force" in error
    assert (words.read_bytes(), file.read_bytes()) == before
    file.write_bytes(b"something else")
    assert command(file)[0] == 2
    assert command(file, "--force", "--classes", "cat, dog, sky", model=other) == (0, "")
    assert str(np.load(words)["weights"]) == weights_digest(other)


def test_command_writes_contrast_words(command, model, different_words, monkeypatch, tmp_path, capsys):
    file = tmp_path / "net.onnx"
    file.touch()
    monkeypatch.setattr("err_seg.export.check_facts", lambda *_: None)
    assert command(file, "--classes", "cat") == (0, "")
    assert np.load(tmp_path / "net.npz")["contrast"].shape == (0,)
    assert command(file, "--classes", "cat", "--contrast", "dog, cat, sky") == (0, "")
    words = np.load(tmp_path / "net.npz")
    assert (words["names"].tolist(), words["contrast"].tolist()) == (["cat"], ["dog", "sky"])
    np.testing.assert_allclose(words["text"], model.embed_vocabulary(("cat", "dog", "sky")).numpy(), atol=1e-6)
    assert "ade150" not in command(file, "--classes", "cat", "--contrast", "ade150")[1]
    assert len(np.load(tmp_path / "net.npz")["contrast"]) > 100
    with pytest.raises(SystemExit):
        command(file, "--contrast", "dog")
    assert "--contrast competes with classes: it needs --classes" in capsys.readouterr().err


def test_command_refuses_other_endings(capsys, tmp_path):
    with pytest.raises(SystemExit) as leaving:
        export.main([str(tmp_path / "net.tflite")])
    assert leaving.value.code == 2
    assert ".onnx, .pt2" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("ending", "precision", "written"), [("onnx", "bf16", "fp32 or fp16"), ("pt2", "fp16", "fp32")]
)
def test_command_refuses_other_precisions(capsys, tmp_path, ending, precision, written):
    with pytest.raises(SystemExit):
        export.main([str(tmp_path / f"net.{ending}"), "--precision", precision])
    assert f"--precision {precision}: .{ending} files are written in {written}\n" in capsys.readouterr().err


@pytest.mark.slow
def test_onnx_and_the_example(model, different_words, tmp_path):
    for library in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(library)
    export_onnx(model, tmp_path / "net.onnx")
    assert check_onnx(model, tmp_path / "net.onnx").holds

    pixels, _, _ = example_inputs(model, 5, 2)
    photo = pixels[0].permute(1, 2, 0).byte().numpy()
    Image.fromarray(photo).save(tmp_path / "photo.png")
    turned = Image.Exif()
    turned[ExifTags.Base.Orientation] = 6
    Image.fromarray(np.rot90(photo)).save(tmp_path / "turned.png", exif=turned)
    save_vocabulary(model, VOCABULARY, tmp_path / "net.npz")

    def run(*arguments):
        command = [sys.executable, REPOSITORY / "examples/run_exported.py", *arguments]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    expected = model.predict([photo], VOCABULARY)[0].labels.numpy()
    for image, output in (("photo.png", ()), ("turned.png", ("folder.png",))):
        assert run("net.onnx", "net.npz", image, *output).returncode == 0
        labels = np.asarray(Image.open(tmp_path / (output or ("labels.png",))[0]))
        assert (labels == expected).mean() > 0.99

    with np.load(tmp_path / "net.npz") as words:
        whole = dict(words)
    np.savez(tmp_path / "few.npz", **{**whole, "weights": np.array(weights_digest({}))})
    result = run("net.onnx", "few.npz", "photo.png", "none.png")
    assert result.returncode == 1
    assert "for other weights than net.onnx" in result.stderr
    assert len(result.stderr.splitlines()) == 1
    order = np.bincount(expected.ravel(), minlength=len(VOCABULARY)).argsort()[::-1].tolist()  # the largest first
    for few in (1, 2):  # the others' pixels are of none of these
        names, others = ([VOCABULARY[index] for index in part] for part in (order[:few], order[few:]))
        save_vocabulary(model, names, tmp_path / "few.npz", others)
        result = run("net.onnx", "few.npz", "photo.png", "few.png")
        assert (result.returncode, result.stderr) == (0, "")
        assert "other: " in result.stdout
        labels = np.asarray(Image.open(tmp_path / "few.png")).astype(np.int64)
        places = np.array([order.index(index) for index in range(len(order))])[expected]
        assert (labels == np.where(places < few, places, 65535)).mean() > 0.99
    whole = dict(np.load(tmp_path / "few.npz"))
    del whole["weights"]  # of an earlier version
    np.savez(tmp_path / "few.npz", **whole)
    assert run("net.onnx", "few.npz", "photo.png", "none.png").returncode == 1
    assert not (tmp_path / "none.png").exists()
