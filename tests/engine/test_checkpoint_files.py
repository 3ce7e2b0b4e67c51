import errno
import hashlib
import json
import shutil

import pytest
import torch
from torch import nn

from err_seg.config import Config
from err_seg.engine import TrainingError
from err_seg.engine.checkpoints import Checkpoints, TrainingState, read_checkpoint_folder
from err_seg.engine.run_setup import check_disk_space
from err_seg.models.checkpoint import CheckpointError
from err_seg.utils.disk import size_text


@pytest.fixture
def model():
    return nn.Linear(3, 2)


def writing(folder, checkpoints, averaged=False, best=False):
    """Return the configuration of a run that has so many checkpoints on disk at once."""
    cfg = Config()
    cfg.OUTPUT_DIR, cfg.TEST.EVAL_PERIOD, cfg.SOLVER.EMA.ENABLED = str(folder), int(best), averaged
    cfg.SOLVER.CHECKPOINT_PERIOD, cfg.SOLVER.MAX_ITER, cfg.SOLVER.CHECKPOINTS_KEPT = 1, checkpoints, checkpoints
    return cfg


def save(checkpoints, model, iteration):
    state = TrainingState(iteration=iteration, pictures=4 * iteration, losses=[0.5], config="SEED: 0")
    with torch.no_grad():
        model.weight.fill_(iteration)
    return checkpoints.save(model.state_dict(), state)


def test_the_last_ones_are_kept_and_the_newest_is_loaded(tmp_path, model):
    checkpoints = Checkpoints(tmp_path, kept=2)
    for iteration in (5, 10, 99_999_999):
        save(checkpoints, model, iteration)
    assert [path.name for path in checkpoints.newest_first()] == ["iter_99999999", "iter_0000010"]
    other = nn.Linear(3, 2)
    state = checkpoints.load_newest(other)
    assert (state.iteration, state.pictures, state.losses) == (99_999_999, 399_999_996, [0.5])
    assert torch.equal(other.weight, model.weight)
    assert sorted(path.name for path in checkpoints.newest_first()[0].iterdir()) == [
        "files.json",
        "model.safetensors",
        "training.pt",
    ]


@pytest.mark.parametrize("file", ["model.safetensors", "training.pt", "files.json"])
@pytest.mark.parametrize("harm", ["truncated", "changed", "missing"])
def test_damage_is_found_wherever_it_is(tmp_path, model, caplog, file, harm):
    checkpoints = Checkpoints(tmp_path, kept=2)
    save(checkpoints, model, 1)
    damaged = save(checkpoints, model, 2) / file
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 1
    if harm == "missing":
        damaged.unlink()
    else:
        damaged.write_bytes(content if harm == "changed" else content[: len(content) // 2])
    assert checkpoints.load_newest(model).iteration == 1
    assert "skipping a damaged checkpoint" in caplog.text
    assert str(damaged.parent) in caplog.text
    assert (model.weight == 1).all()
    checkpoints.tidy(1)
    assert [path.name for path in checkpoints.newest_first()] == ["iter_0000001"]


def test_resume_refuses_when_every_checkpoint_is_damaged(tmp_path, model):
    checkpoints = Checkpoints(tmp_path, kept=2)
    (save(checkpoints, model, 1) / "files.json").write_text("{}")
    with pytest.raises(TrainingError, match=r"all checkpoints are damaged: .*iter_0000001.*start without --resume"):
        checkpoints.load_newest(model)


def test_checkpoint_of_another_network_is_not_taken_for_damage(tmp_path, model):
    checkpoints = Checkpoints(tmp_path, kept=2)
    save(checkpoints, model, 1)
    with pytest.raises(CheckpointError, match="does not fit"):
        checkpoints.load_newest(nn.Linear(4, 2))


def test_nothing_in_a_checkpoint_is_executed(tmp_path, model):
    checkpoints = Checkpoints(tmp_path, kept=1)
    path = save(checkpoints, model, 1)
    torch.save({"iteration": print}, path / "training.pt")
    facts = json.loads((path / "files.json").read_text())
    content = (path / "training.pt").read_bytes()
    facts["training.pt"] = {
        "bytes": len(content),
        "blake2b": hashlib.blake2b(content, digest_size=16).hexdigest(),
    }
    (path / "files.json").write_text(json.dumps(facts))
    with pytest.raises(CheckpointError, match="UnpicklingError"):
        read_checkpoint_folder(path)


def test_failed_write_leaves_the_earlier_checkpoint(tmp_path, model, monkeypatch):
    checkpoints = Checkpoints(tmp_path, kept=1)
    save(checkpoints, model, 1)

    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("err_seg.engine.checkpoints.torch.save", full)
    with pytest.raises(OSError, match="No space"):
        save(checkpoints, model, 2)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["iter_0000001"]
    assert checkpoints.load_newest(model).iteration == 1


def test_leavings_of_a_killed_run_are_neither_loaded_nor_left(tmp_path, model):
    checkpoints = Checkpoints(tmp_path, kept=1)
    path = save(checkpoints, model, 1)
    shutil.copytree(path, path.with_name(".iter_0000002.partial"))
    assert checkpoints.load_newest(model).iteration == 1
    checkpoints.tidy(1)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["iter_0000001"]


def test_a_checkpoint_is_written_over_one_of_the_same_iteration(tmp_path, model):
    checkpoints = Checkpoints(tmp_path, kept=1)
    (save(checkpoints, model, 1) / "training.pt").unlink()
    save(checkpoints, model, 1)
    assert checkpoints.load_newest(model).iteration == 1


def test_too_little_space_is_reported_at_the_start(tmp_path, monkeypatch):
    model = nn.Linear(1000, 1000)
    needed = 3 * 12 * 1_001_000 + 4 * 1_001_000
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage._replace(free=needed - 1))
    sums = "has 40.0 MB free, the run needs 40.0 MB: 3 checkpoints of 12.0 MB and the final weights of 4.00 MB. "
    with pytest.raises(TrainingError, match=rf"{sums}.*SOLVER\.CHECKPOINTS_KEPT"):
        check_disk_space(writing(tmp_path, checkpoints=3), model)
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage._replace(free=needed))
    check_disk_space(writing(tmp_path, checkpoints=3), model)
    assert list(tmp_path.iterdir()) == []
    model.requires_grad_(False)
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage._replace(free=4 * 4 * 1_001_000))
    check_disk_space(writing(tmp_path, checkpoints=3), model)
    with pytest.raises(TrainingError, match="final and best weights"):
        check_disk_space(writing(tmp_path, checkpoints=3, best=True), model)
    check_disk_space(writing(tmp_path, checkpoints=3, averaged=True), model)
    model.requires_grad_(True)
    needed = 3 * (1 + 3) * 4 * 1_001_000 + 4 * 1_001_000
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage._replace(free=needed))
    check_disk_space(writing(tmp_path, checkpoints=3, averaged=True), model)
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage._replace(free=needed - 1))
    with pytest.raises(TrainingError):
        check_disk_space(writing(tmp_path, checkpoints=3, averaged=True), model)


def test_space_that_earlier_checkpoints_take_is_not_asked_for_again(tmp_path, monkeypatch):
    model = nn.Linear(1000, 1000)
    save(Checkpoints(tmp_path, kept=2), model, 1)  # 4 MB of weights, no moments yet
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage._replace(free=1_000_000))
    with pytest.raises(
        TrainingError,
        match=r"has 1\.00 MB free, the run needs 12\.0 MB: 1 checkpoint of 12\.0 MB and .*"
        r"final weights of 4\.00 MB, less 4\.01 MB that are there\.",
    ):
        check_disk_space(writing(tmp_path, checkpoints=1), model, resume=True)


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 bytes"), (999, "999 bytes"), (1500, "1.50 kB"), (48_300_000, "48.3 MB"), (3 * 10**11, "300 GB")],
)
def test_sizes_are_told_in_the_unit_that_shows_them(size, text):
    assert size_text(size) == text
