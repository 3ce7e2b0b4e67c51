"""err-seg calibrate: the file that it writes, and what it refuses before anything is computed."""

import os
import re

import numpy as np
import pytest
import torch
from PIL import Image

import err_seg
from err_seg.commands import calibrate, publish
from err_seg.data import register, spec_from_dict, unregister
from err_seg.evaluation import BenchmarkResult, benchmarks
from err_seg.models.card import TrainingRecord
from err_seg.models.checkpoint import open_checkpoint
from tests.helpers.toy import VOCABULARY, liven
from tests.helpers.training import declaration, write_images


@pytest.fixture
def weights(run_cfg, tmp_path):
    """A file as training writes it, and data sets on which labels of a larger lead are more often right."""
    cfg = run_cfg("INPUT.MIN_SIZE_TEST", 0)
    model = err_seg.build_model(cfg)
    liven(model)
    random = np.random.default_rng(0)
    for name, count in (("right_val", 7), ("small_val", 3)):
        write_images(tmp_path, name, count, len(VOCABULARY))
        for image in (tmp_path / name / "images").iterdir():
            result = model.predict(image, VOCABULARY, contrast="none")
            lead = result.lead.numpy()
            is_right = lead.argsort(axis=None).argsort().reshape(lead.shape) > random.uniform(0, lead.size, lead.shape)
            labels = np.where(is_right, result.labels.numpy(), (result.labels.numpy() + 1) % len(VOCABULARY))
            Image.fromarray(labels.astype(np.uint8)).save(tmp_path / name / "labels" / image.name)
        register(spec_from_dict(declaration(tmp_path, name)))
    file = tmp_path / "toy.safetensors"
    err_seg.save_weights(model, file, {"config": cfg.dump(), "iteration": 6})
    yield file
    for name in ("right_val", "small_val"):
        unregister(name)


@pytest.fixture
def run(capsys, monkeypatch):
    """Return a function that runs the command; gives exit status, standard output and error output."""

    def call(*arguments, datasets=("right_val",), opts=()):
        options = ("--datasets", *datasets, "--device", "cpu", "--opts", "DATALOADER.NUM_WORKERS", "0", *opts)
        status = calibrate.main([*map(str, arguments), *options])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return call


@pytest.fixture
def never(monkeypatch):
    """Fail where the network would be run."""

    def fail(*_):
        raise AssertionError("nothing may be computed")

    monkeypatch.setattr(benchmarks, "count_for_calibration", fail)


def test_the_file_gets_a_calibration_and_stays_what_it_was(run, weights):
    before = open_checkpoint(weights)
    status, out, _ = run(weights)
    assert status == 0
    assert "| scores" in out
    assert "| confidence, of other images" in out
    after = open_checkpoint(weights)
    assert {name: after.metadata[name] for name in before.metadata} == dict(before.metadata)
    assert after.entries.keys() == before.entries.keys()
    assert all(torch.equal(after.entries[name], tensor) for name, tensor in before.entries.items())
    calibration = err_seg.load(weights, device="cpu").calibration
    assert (calibration.datasets, calibration.images) == ("right_val", 7)
    assert calibration.sha256 == before.source.sha256
    assert str(calibration) in out


def test_again_gives_the_same_and_remembers_the_first_file(run, weights, tmp_path):
    run(weights)
    first = open_checkpoint(weights)
    run(weights, "--output", tmp_path / "second.safetensors")
    second = open_checkpoint(tmp_path / "second.safetensors")
    assert second.metadata["calibration"] == first.metadata["calibration"]


def test_output_leaves_the_model_alone(run, weights, tmp_path):
    content = weights.read_bytes()
    assert run(weights, "--output", tmp_path / "new/other.safetensors")[0] == 0
    assert weights.read_bytes() == content
    assert err_seg.load(tmp_path / "new/other.safetensors", device="cpu").calibration


def test_a_torch_file_is_written_as_safetensors_with_its_configuration(run, weights, run_cfg, tmp_path):
    torch.save({"model": dict(open_checkpoint(weights).entries)}, tmp_path / "old.pth")
    (tmp_path / "toy.yaml").write_text(run_cfg().dump())
    config = ("--config-file", tmp_path / "toy.yaml")
    assert run(tmp_path / "old.pth", *config, "--output", tmp_path / "new.safetensors")[0] == 0
    model = err_seg.load(tmp_path / "new.safetensors", device="cpu")
    assert model.settings == err_seg.load(weights, device="cpu").settings
    assert model.calibration


def test_settings_that_it_was_calibrated_with_are_stored(run, weights):
    assert run(weights, opts=("INPUT.SIZE", "96"))[0] == 0
    assert err_seg.load(weights, device="cpu").size == 96


def test_several_data_sets_count_together(run, weights):
    assert run(weights, datasets=("right_val", "small_val"))[0] == 0
    calibration = err_seg.load(weights, device="cpu").calibration
    assert (calibration.datasets, calibration.images) == ("right_val, small_val", 10)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("mini", r"mini is not a file on this machine that a calibration could be stored in; name .*--output FILE"),
        ("someone/their-model", r"someone/their-model is not a file on this machine"),
        ("old.pth", r"old.pth is not a .safetensors file, which alone can hold a calibration; name a file"),
    ],
)
def test_models_without_a_file_of_their_own_need_an_output(run, never, tmp_path, monkeypatch, model, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "old.pth").touch()
    status, _, err = run(model)
    assert status == 2
    assert err.startswith("error: ")
    assert re.search(message, err)


def test_what_cannot_be_written_is_found_before_the_work(run, never, weights, tmp_path, monkeypatch):
    content = weights.read_bytes()
    for output in (weights / "in_a_file.safetensors", tmp_path):
        assert run(weights, "--output", output)[0] == 2
    access = os.access
    monkeypatch.setattr(
        os, "access", lambda path, mode: path != weights and access(path, mode)
    )  # as for no one but root
    status, _, err = run(weights)
    assert (status, "toy.safetensors cannot be written" in err, "--output" in err) == (2, True, True)
    assert weights.read_bytes() == content


def test_data_that_is_unknown_or_too_little(run, never, weights):
    status, _, err = run(weights, datasets=("nothing_val",))
    assert (status, "nothing_val" in err) == (2, True)
    status, _, err = run(weights, datasets=("small_val",))
    assert status == 2
    assert "small_val: 3 labelled images; calibration needs 5 or more" in err


def test_a_network_that_is_never_right_is_not_calibrated(run, weights, monkeypatch):
    content = weights.read_bytes()
    counting = benchmarks.count_pixels
    monkeypatch.setattr(benchmarks, "count_pixels", lambda values, is_right: counting(values, is_right & False))
    status, _, err = run(weights)
    assert status == 2
    assert "error: 0 of " in err
    assert weights.read_bytes() == content


def test_figures_of_the_file_before_belong_to_the_calibrated_one(run, weights, run_cfg, tmp_path):
    """Their weights are the same."""
    source = open_checkpoint(weights).source
    run(weights)
    model = err_seg.load(weights, device="cpu")
    assert model.source.sha256 != source.sha256

    def check(sha256):
        settings = {"source": {"file": "x", "sha256": sha256}}
        publish.check_figures(TrainingRecord([BenchmarkResult("a", {}, [], [], 1, settings)]), model)

    for sha256 in (source.sha256, model.source.sha256):
        check(sha256)
    with pytest.raises(ValueError, match="other weights"):
        check("0" * 64)
