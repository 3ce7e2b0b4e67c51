"""One run at a time writes to OUTPUT_DIR: the second is refused, and a run that was killed leaves no lock behind."""

import logging
import os
import signal
import subprocess
import sys

import pytest

import err_seg
from err_seg.engine import EvaluationError, RunError, TrainingError, evaluate, train
from err_seg.utils.locks import locked
from err_seg.utils.processes import WRITER, one_writer
from tests.helpers.training import another_run, command, environment, metrics, run, wait_for

LONG = ("SOLVER.MAX_ITER", 100_000, "DATALOADER.NUM_WORKERS", 2)


def files_of(folder):
    kept = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in kept}


def test_a_second_training_is_refused_and_changes_nothing(run_cfg, tmp_path):
    """Both used to end with status 0, and the files of the first were the second's."""
    first = subprocess.Popen(command(run_cfg(*LONG), tmp_path / "first.yaml"), env=environment())
    wait_for(tmp_path / "out/checkpoints/iter_0000002", first)
    first.send_signal(signal.SIGSTOP)  # so that what it writes itself can be told from what the second one does
    before = files_of(tmp_path / "out")
    line = command(run_cfg("SOLVER.MAX_ITER", 1, "SEED", 7), tmp_path / "second.yaml")
    for more in ([], ["--resume"], ["--eval-only"], ["--num-gpus", "2"]):
        second = subprocess.run([*line, *more], env=environment(), capture_output=True, text=True, timeout=120)
        assert second.returncode == 1, second.stderr
        (told,) = [text for text in second.stderr.splitlines() if "error:" in text]
        assert f"another run (process {first.pid} on {os.uname().nodename}) is writing to OUTPUT_DIR" in told
        assert "wait for it, or choose another" in told
        assert "Traceback" not in second.stderr
    assert files_of(tmp_path / "out") == before
    first.send_signal(signal.SIGCONT)
    first.terminate()
    assert first.wait(60) == 143


def test_a_killed_run_leaves_no_lock_behind(run_cfg, tmp_path):
    """Its loader processes live on for some seconds; they must not hold what they were forked with."""
    process = subprocess.Popen(command(run_cfg(*LONG), tmp_path / "run.yaml"), env=environment())
    wait_for(tmp_path / "out/checkpoints/iter_0000002", process)
    process.kill()
    process.wait()
    done = max(int(path.name[-7:]) for path in (tmp_path / "out/checkpoints").glob("iter_*"))
    run(run_cfg("SOLVER.MAX_ITER", done + 2), resume=True)
    assert metrics(tmp_path / "out", "iteration") == list(range(done + 2))


@pytest.mark.parametrize("is_api", [True, False])
def test_functions_are_refused_with_their_own_errors(run_cfg, tmp_path, is_api):
    cfg = run_cfg("SOLVER.MAX_ITER", 1)
    model = err_seg.build_model(cfg)
    (tmp_path / "link").symlink_to(tmp_path / "out")
    with another_run(tmp_path / "out"):
        cfg.OUTPUT_DIR = str(tmp_path / ("out" if is_api else "link"))  # the same folder by another name
        with pytest.raises(TrainingError, match="another run"):
            train(cfg, model)
        with pytest.raises(EvaluationError, match="another run"):
            evaluate(cfg, model)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {WRITER}
    train(cfg, model)
    evaluate(cfg, model)


def test_a_run_may_claim_its_folder_again(tmp_path):
    with one_writer(tmp_path), one_writer(tmp_path / "further"), one_writer(tmp_path):
        assert "process" in (tmp_path / WRITER).read_text()
    with another_run(tmp_path), pytest.raises(RunError), one_writer(tmp_path):
        pass
    with one_writer(tmp_path):
        pass


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path):
    (tmp_path / "file").touch()
    with (
        pytest.raises(TrainingError, match=r"file/out cannot be written to: .*; choose another"),
        one_writer(tmp_path / "file/out", TrainingError),
    ):
        pass


def test_a_lock_lives_as_long_as_its_process_and_those_it_was_handed_to(tmp_path):
    file = tmp_path / "lock"
    with locked(file, "first"):
        with locked(file, "second") as lock:
            assert lock is None
        assert file.read_text() == "first"
    with locked(file, "handed on") as lock:
        child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=(lock,))
    with locked(file) as lock:
        assert lock is None
    child.communicate(b"\n")
    read, write = os.pipe()
    with locked(file) as lock:
        assert lock is not None
        forked = os.fork()
        if forked == 0:
            os.write(write, b"here")
            signal.pause()
        os.read(read, 4)
    try:
        with locked(file) as lock:
            assert lock is not None, "a forked process holds nothing"
    finally:
        os.kill(forked, signal.SIGKILL)
        os.waitpid(forked, 0)


def test_a_second_training_in_one_process_has_a_log_of_its_own(train_net, tmp_path, monkeypatch):
    """Its lines used to go to the first one's log.txt."""
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])  # pytest's: a program has none before it logs
    for name in ("first", "second"):
        assert train_net("OUTPUT_DIR", tmp_path / name, "DATASETS.TEST", "[]")[0] == 0
        assert not root.handlers
    logs = [(tmp_path / name / "log.txt").read_text() for name in ("first", "second")]
    assert [log.count("training on 10 images of toy_train") for log in logs] == [1, 1]
    assert [str(tmp_path / "second") in log for log in logs] == [False, True]
    assert root.level == logging.WARNING
