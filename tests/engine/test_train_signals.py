import os
import random
import signal
import subprocess
import time
from contextlib import suppress

import pytest

import err_seg
from err_seg.config import ConfigError
from err_seg.engine import TrainingInterrupted
from err_seg.engine.checkpoints import read_checkpoint_folder
from err_seg.engine.trainer import PlainTrainer
from err_seg.utils.signals import StopRequest, handling_stop_signals
from tests.helpers.toy import REPOSITORY
from tests.helpers.training import assert_same_weights, command, environment, metrics, run, wait_for

LONG = ("SOLVER.MAX_ITER", 60, "SOLVER.CHECKPOINT_PERIOD", 3, "MODEL.ESCF.DROP_PATH", 0.5)


@pytest.mark.parametrize(("signum", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signal_saves_between_iterations_and_resuming_goes_on_exactly(run_cfg, tmp_path, monkeypatch, signum, status):
    run(run_cfg("OUTPUT_DIR", str(tmp_path / "straight")))
    step = PlainTrainer.step

    def interrupted(run, *arguments):
        if run.iteration == 2:
            os.kill(os.getpid(), signum)
        return step(run, *arguments)

    handler = signal.getsignal(signum)
    with monkeypatch.context() as patch:
        patch.setattr(PlainTrainer, "step", interrupted)
        with pytest.raises(TrainingInterrupted) as stop:
            run(run_cfg("SOLVER.CHECKPOINT_PERIOD", 100))
    assert stop.value.status == status
    iteration = len(metrics(tmp_path / "out", "iteration"))
    assert iteration in (3, 4)  # the signal is seen before or after the step that it falls into
    assert f"stopped after {iteration} iterations" in str(stop.value)
    assert signal.getsignal(signum) == handler
    run(run_cfg(), resume=True)
    assert_same_weights(tmp_path / "straight/model_final.safetensors", tmp_path / "out/model_final.safetensors")


def test_loader_processes_leave_signals_to_the_training_process():
    stop = StopRequest()
    with handling_stop_signals(stop):
        child = os.fork()
        if child == 0:
            os.kill(os.getpid(), signal.SIGTERM)
            os._exit(bool(stop.signum))
        assert os.waitpid(child, 0)[1] == 0
        assert stop.signum == 0


def test_sigterm_ends_the_command_with_its_own_status(run_cfg, tmp_path):
    cfg = run_cfg(*LONG, "SOLVER.MAX_ITER", 100_000, "DATALOADER.NUM_WORKERS", 1)
    arguments = command(cfg, tmp_path / "run.yaml")
    process = subprocess.Popen(arguments, env=environment(), stderr=subprocess.PIPE, text=True)
    wait_for(tmp_path / "out/checkpoints/iter_0000003", process)
    process.terminate()
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 143
    assert "SIGTERM: stopped after" in errors.splitlines()[-1]
    assert "Traceback" not in errors
    newest = max((tmp_path / "out/checkpoints").iterdir())
    assert read_checkpoint_folder(newest).iteration == len(metrics(tmp_path / "out", "iteration"))


@pytest.mark.parametrize(
    ("signum", "status", "more"),
    [
        (signal.SIGTERM, 143, ()),
        (signal.SIGTERM, 143, ("--num-gpus", "2")),
        (signal.SIGUSR1, 138, ("--num-gpus", "2")),
        (signal.SIGHUP, 129, ()),
    ],
)
def test_signal_to_the_whole_job_saves_a_checkpoint(run_cfg, tmp_path, signum, status, more):
    """As Slurm and Docker do: the loader processes ended, and memory was blamed, without a checkpoint."""
    cfg = run_cfg(*LONG, "SOLVER.MAX_ITER", 100_000, "SOLVER.CHECKPOINT_PERIOD", 3, "DATALOADER.NUM_WORKERS", 1)
    arguments = command(cfg, tmp_path / "run.yaml", *more)
    process = subprocess.Popen(arguments, env=environment(), stderr=subprocess.PIPE, text=True, start_new_session=True)
    try:
        wait_for(tmp_path / "out/checkpoints/iter_0000003", process)
        os.killpg(process.pid, signum)
        _, errors = process.communicate(timeout=60)
    finally:
        with suppress(ProcessLookupError):  # it has ended, as it should
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == status, errors
    assert errors.count(f"{signal.Signals(signum).name}: stopped after") == 1, errors
    assert "memory" not in errors
    assert "Traceback" not in errors
    newest = max((tmp_path / "out/checkpoints").iterdir())
    assert read_checkpoint_folder(newest).iteration == len(metrics(tmp_path / "out", "iteration"))


def test_which_signals_stop_a_training_is_configurable_and_ignored_ones_stay_ignored(run_cfg, tmp_path, monkeypatch):
    step, seen = PlainTrainer.step, []

    def looking(run, *arguments):
        seen.append([signal.getsignal(signum) for signum in (signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)])
        return step(run, *arguments)

    monkeypatch.setattr(PlainTrainer, "step", looking)
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        run(run_cfg("SOLVER.MAX_ITER", 1))
        run(run_cfg("SOLVER.MAX_ITER", 1, "SOLVER.STOP_SIGNALS", ["SIGTERM"]))
    finally:
        signal.signal(signal.SIGHUP, before)
    first, second = seen
    assert isinstance(first[0], StopRequest)
    assert first[1] is first[0]
    assert first[2] == signal.SIG_IGN
    assert isinstance(second[0], StopRequest)
    assert second[1:] == [signal.SIG_DFL, signal.SIG_IGN]
    with pytest.raises(ConfigError, match=r"SOLVER\.STOP_SIGNALS must be a list of any of 'SIGTERM'"):
        run_cfg("SOLVER.STOP_SIGNALS", ["SIGKILL"])


def kill_at_random(arguments, output, chance):
    """Run a command until it has written a checkpoint, then kill it at a random moment of the next iterations."""
    before = newest_checkpoint(output)
    process = subprocess.Popen(arguments, env=environment(), stderr=subprocess.DEVNULL)
    while newest_checkpoint(output) == before and process.poll() is None:
        time.sleep(0.005)
    time.sleep(chance.uniform(0, 0.2))
    assert process.poll() is None, "the run ended before it could be killed"
    process.kill()
    process.wait()


def newest_checkpoint(output):
    return max((path.name for path in (output / "checkpoints").glob("iter_*")), default="")


@pytest.fixture
def mini_cfg(tmp_path):
    """Return a function from overrides to configs/mini/err_seg.yaml, with its own CLIP weights, on a few scenes."""
    own = ("DATASETS.ROOT", str(tmp_path), "DATASETS.TRAIN", ["mini_world_train_20"], "DATASETS.TEST", [])
    own += ("LOG.TENSORBOARD", False, "SOLVER.IMS_PER_BATCH", 2, "DATALOADER.NUM_WORKERS", 1)
    file = REPOSITORY / "configs/mini/err_seg.yaml"
    return lambda *overrides: err_seg.get_cfg(file, [*own, "OUTPUT_DIR", str(tmp_path / "out"), *overrides])


def check_after_kill(cfg, tmp_path):
    for name in ("straight", "out"):
        run(cfg(*LONG, "OUTPUT_DIR", str(tmp_path / name)), resume=True)
    assert_same_weights(tmp_path / "straight/model_final.safetensors", tmp_path / "out/model_final.safetensors")
    keys = ("iteration", "total_loss", "lr")
    assert metrics(tmp_path / "out", *keys) == metrics(tmp_path / "straight", *keys)
    assert not list((tmp_path / "out/checkpoints").glob(".*"))


def test_killed_run_resumes_exactly(run_cfg, tmp_path):
    arguments = command(run_cfg(*LONG, "SOLVER.CHECKPOINT_PERIOD", 1), tmp_path / "run.yaml")
    kill_at_random(arguments, tmp_path / "out", random.Random(0))
    check_after_kill(run_cfg, tmp_path)


@pytest.mark.slow
def test_run_of_the_miniature_world_killed_ten_times_resumes_exactly(mini_cfg, tmp_path):
    chance = random.Random(1)
    cfg = mini_cfg(*LONG, "SOLVER.CHECKPOINT_PERIOD", 1)
    assert (cfg.MODEL.CLIP.NAME, cfg.MODEL.CLIP.PRETRAINED) == ("mini", "mini")
    arguments = command(cfg, tmp_path / "run.yaml", "--resume")
    for _ in range(10):
        kill_at_random(arguments, tmp_path / "out", chance)
    check_after_kill(mini_cfg, tmp_path)
