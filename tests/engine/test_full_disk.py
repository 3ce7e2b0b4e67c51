"""A disk that fills up while a run is under way ends it with one sentence, and loses nothing."""

import errno
import subprocess

import numpy as np
import pytest
import torch

from err_seg.engine import EvaluationError, TrainingError, evaluate
from err_seg.engine.trainer import PlainTrainer
from err_seg.models.checkpoint import save_weights
from err_seg.prediction.segmentation import Segmentation
from err_seg.utils.disk import disk_error
from err_seg.utils.files import atomic_write
from tests.helpers.training import assert_same_weights, command, environment, run

QUIET = ("LOG.PERIOD", 1000)  # nothing but the file in question is written


def fill_after(monkeypatch, iterations, fill):
    step = PlainTrainer.step

    def filling(run, *arguments):
        signum = step(run, *arguments)
        if run.iteration == iterations:
            fill()
        return signum

    monkeypatch.setattr(PlainTrainer, "step", filling)


@pytest.mark.parametrize(
    ("file", "options"),
    [
        ("metrics.json", ("LOG.PERIOD", 3)),
        ("checkpoints/.iter_0000004.partial/model.safetensors", QUIET),
        ("vis/iter_0000003.png", (*QUIET, "VIS_PERIOD", 3)),
    ],
)
def test_training_names_the_file_and_the_newest_checkpoint_and_resumes(
    run_cfg, monkeypatch, small_disk, tmp_path, file, options
):
    disk, fill = small_disk
    run(run_cfg(*options, "OUTPUT_DIR", str(tmp_path / "straight")))
    output, path = disk / "out", disk / "out" / file
    cfg = run_cfg(*options, "OUTPUT_DIR", str(output))
    if file == "metrics.json":  # whose lines would fit into what its last block has left
        output.mkdir()
        path.symlink_to("/dev/full")
    with monkeypatch.context() as patch:
        fill_after(patch, 3, fill)
        with pytest.raises(TrainingError) as stop:
            run(cfg)
    assert str(path) in str(stop.value)
    assert "No space left on device" in str(stop.value)
    assert f"the last good checkpoint is {output / 'checkpoints/iter_0000002'}. Free some space" in str(stop.value)
    assert str(stop.value).endswith("--resume")
    (disk / "ballast").unlink(missing_ok=True)
    if path.is_symlink():
        path.unlink()
    run(cfg, resume=True)
    assert_same_weights(tmp_path / "straight/model_final.safetensors", output / "model_final.safetensors")


def test_what_tensorboards_thread_cannot_write_ends_the_run_and_prints_no_stack_trace(
    run_cfg, monkeypatch, small_disk, tmp_path, capfd
):
    disk, fill = small_disk
    (tmp_path / "out").mkdir()
    (tmp_path / "out/tensorboard").symlink_to(disk)
    fill_after(monkeypatch, 3, fill)
    with pytest.raises(
        TrainingError, match=r"cannot write .*out/tensorboard: No space left.*iter_000000[24]\. Free some space"
    ):
        run(run_cfg("LOG.TENSORBOARD", True, "VIS_PERIOD", 1))
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.parametrize("file", ["metrics.json", "log.txt"])
def test_the_command_ends_in_one_line(run_cfg, tmp_path, file):
    cfg = run_cfg()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / file).symlink_to("/dev/full")
    done = subprocess.run(command(cfg, tmp_path / "run.yaml"), env=environment(), capture_output=True, text=True)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "Logging error" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: ")
    assert f"{tmp_path / 'out' / file}" in done.stderr.splitlines()[-1]
    assert "No space left on device" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize("file", ["partial-0.json", "labels/p4.png"])
def test_evaluation_keeps_what_is_done_and_goes_on(run_cfg, toy_model, small_disk, tmp_path, monkeypatch, file):
    disk, fill = small_disk
    model = toy_model()
    save = ["png"] if "labels" in file else []
    (expected,) = evaluate(run_cfg("TEST.SAVE", save), model)
    cfg = run_cfg("OUTPUT_DIR", str(disk / "out"), "TEST.PROGRESS_PERIOD", 2, "TEST.SAVE", save)
    labelled, plain = [], Segmentation._best

    def best(self):
        labelled.append(None)
        if len(labelled) == 5:  # four images are counted and written down
            fill()
        return plain(self)

    monkeypatch.setattr(Segmentation, "_best", best)
    with pytest.raises(EvaluationError) as stop:
        evaluate(cfg, model)
    assert f"cannot write {disk / 'out/inference/toy_val' / file}: No space left on device" in str(stop.value)
    kept = "4 images of toy_val are done and kept"
    assert f"{kept}. Free some space there, then rerun the same command" in str(stop.value)
    (disk / "ballast").unlink()
    seen = []
    model.encoder.register_forward_pre_hook(lambda *_: seen.append(None))
    (result,) = evaluate(cfg, model)
    assert len(seen) == 3
    assert result.metrics == pytest.approx(expected.metrics, nan_ok=True)


def test_whatever_writes_the_file_is_named(tmp_path, small_disk):
    disk, fill = small_disk
    fill(leave=100_000)
    weights = {"a": torch.zeros(100_000)}
    with pytest.raises(OSError, match=r"No space left on device.*weights\.safetensors") as stop:
        save_weights(weights, disk / "weights.safetensors")
    assert stop.value.errno == errno.ENOSPC
    with (
        pytest.raises(OSError, match=r"No space left on device.*array\.npy'$"),
        atomic_write(disk / "array.npy") as partial,
    ):
        np.save(partial.open("wb"), np.zeros(100_000))
    assert [path.name for path in disk.iterdir()] == ["ballast"]


def test_what_has_nothing_to_do_with_the_disk_stays_as_it_is(tmp_path):
    for error in (ValueError("(os error 2)"), OSError("not an image"), FileNotFoundError(2, "No such file", "other")):
        with pytest.raises(type(error)) as raised, atomic_write(tmp_path / "a"):
            raise error
        assert raised.value is error
        assert disk_error(error) is None
    full = OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(OSError, match=r"No space left on device: '.*/a'"), atomic_write(tmp_path / "a"):
        raise full
    assert disk_error(full) is full
