"""What becomes of processes that work together when one of them fails, is killed, falls silent or is merely late."""

import argparse
import contextlib
import json
import os
import re
import signal
import subprocess
import threading
import time
from datetime import timedelta
from multiprocessing.connection import Client, Listener

import psutil
import pytest
import torch
import torch.distributed as dist

import err_seg
from err_seg.commands import train
from err_seg.config import ConfigError
from err_seg.engine import launch as module
from err_seg.engine.checkpoints import Checkpoints
from err_seg.engine.launch import join_processes, launch
from err_seg.engine.trainer import PlainTrainer
from err_seg.evaluation.state import EvaluationProgress
from err_seg.utils import heartbeat
from tests.helpers.processes import join, start_machines
from tests.helpers.training import wait_for

GO_ON = "the same command evaluates from where it stopped"
GONE = "is gone: it was killed, or its machine went down"


def options(file, *opts, eval_only=False):
    """Return what err-seg train reads from its command line."""
    return argparse.Namespace(
        config_file=str(file), opts=list(opts), eval_only=eval_only, resume=False, engine="plain", engine_reason="here"
    )


def kill_itself(*_):
    os.kill(os.getpid(), signal.SIGKILL)


def kill_itself_later(*_):
    time.sleep(3)
    kill_itself()


def run_out_of_space(*_):
    raise OSError("No space left on device")


def take_long(*_):
    time.sleep(4)


# what happens instead of the n-th call of a method in a process
FAULTS = {
    "training": {1: (PlainTrainer, "step", 4, kill_itself)},
    "evaluation": {0: (EvaluationProgress, "save", 1, kill_itself), 1: (EvaluationProgress, "save", 1, take_long)},
    "waiting": {1: (EvaluationProgress, "save", 2, kill_itself_later)},
    "disk": {0: (Checkpoints, "save", 2, run_out_of_space)},
    "late": {1: (EvaluationProgress, "save", 1, lambda *_: time.sleep(8))},
}


def faulty_work(argument):
    """Do the work of err-seg train in one of several processes, in some of which something happens."""
    arguments, fault, seconds = argument
    torch.set_num_threads(1)
    module.TIMEOUT = timedelta(seconds=seconds)
    cls, name, number, action = FAULTS[fault].get(int(os.environ["RANK"]), (PlainTrainer, "step", 0, None))
    method, calls = getattr(cls, name), []

    def counted(*arguments, **keywords):
        calls.append(None)
        return (action if len(calls) == number else method)(*arguments, **keywords)

    setattr(cls, name, counted)
    return train.work(arguments)


@pytest.fixture
def work_with(run_cfg, tmp_path):
    """Return a function that trains or evaluates in two processes with a fault; gives the exit status."""

    def work(fault, *, eval_only, seconds=60):
        file = tmp_path / "run.yaml"
        file.write_text(run_cfg("TEST.PROGRESS_PERIOD", 1).dump())
        run = {"config_file": str(file), "opts": [], "eval_only": eval_only, "resume": False, "predictor": None}
        arguments = argparse.Namespace(**run, engine="plain", engine_reason="as told")
        return launch(faulty_work, (arguments, fault, seconds), processes=2)

    return work


def translate_errors(errors):
    """Return the sentences in which processes say why they ended; there is no traceback besides."""
    assert "Traceback" not in errors
    assert "gloo" not in errors
    return re.findall(r"\[process \d\] .*", errors)


def test_killed_process_ends_the_training_with_one_sentence(work_with, tmp_path, capfd):
    assert work_with("training", eval_only=False) == 137
    newest = f"the last good checkpoint is {tmp_path}/out/checkpoints/iter_0000002"
    expected = f"[process 0] error: process 1 {GONE}; {newest}; {GO_ON}; with --resume it continues the training"
    assert translate_errors(capfd.readouterr().err) == [expected]


@pytest.mark.parametrize("fault", ["evaluation", pytest.param("waiting", marks=pytest.mark.slow)])
def test_killed_process_ends_the_evaluation_with_one_sentence(work_with, tmp_path, capfd, fault):
    assert work_with(fault, eval_only=True) == 137
    lost, other = (0, 1) if fault == "evaluation" else (1, 0)
    assert translate_errors(capfd.readouterr().err) == [f"[process {other}] error: process {lost} {GONE}; {GO_ON}"]


@pytest.mark.slow
def test_process_that_fails_alone_says_why_and_ends_the_others(work_with, tmp_path, capfd):
    assert work_with("disk", eval_only=False) == 1
    own, other = sorted(translate_errors(capfd.readouterr().err))
    assert own.startswith("[process 0] error: could not write the checkpoint of iteration 4: No space left on device")
    assert other.startswith("[process 1] error: process 0 has stopped with an error; the last good checkpoint is ")
    assert "iter_0000002; the same command" in other


@pytest.mark.slow
def test_evaluation_waits_for_a_late_process_longer_than_collectives_may_take(work_with, tmp_path, capfd):
    assert work_with("late", eval_only=True, seconds=5) == 0
    assert translate_errors(capfd.readouterr().err) == []
    assert json.loads((tmp_path / "out/results.json").read_text())["benchmarks"]["toy_val"]["pictures"] == 7


@pytest.mark.slow
@pytest.mark.parametrize("lost", [0, 1])
def test_killed_process_of_one_machine_ends_the_other_machine_with_one_sentence(run_cfg, tmp_path, lost):
    machines = start_machines(run_cfg("SOLVER.MAX_ITER", 100_000), tmp_path)
    wait_for(tmp_path / "out/checkpoints/iter_0000002", machines[0], seconds=300)
    children = psutil.Process(machines[lost].pid).children()
    (worker,) = [child for child in children if any("spawn_main" in word for word in child.cmdline())]
    worker.kill()
    statuses, errors = join(machines)
    assert (statuses[lost], statuses[1 - lost]) == (137, 1)
    assert translate_errors(errors[lost]) == []
    (line,) = translate_errors(errors[1 - lost])
    assert line.startswith(f"[process {1 - lost}] error: process {lost} {GONE}; the last good checkpoint is {tmp_path}")


def impatient_meeting(what):
    """Meet twice, as processes that take two seconds of silence for the end; in between something happens."""
    heartbeat.BEAT_SECONDS, heartbeat.SILENCE_SECONDS = 0.5, 2.0
    join_processes(err_seg.get_cfg(None, ["MODEL.DEVICE", "cpu"]))
    heartbeat.wait_for_all()
    pids = [0, 0]
    dist.all_gather_object(pids, os.getpid())
    if what == "one stops" and dist.get_rank() == 1:
        os.kill(os.getpid(), signal.SIGSTOP)
    if what == "all stop" and dist.get_rank() == 1:
        both = " ".join(map(str, pids))
        subprocess.Popen(["sh", "-c", f"kill -STOP {both}; sleep 4; kill -CONT {both}"]).wait()
    heartbeat.wait_for_all()
    time.sleep(1)
    heartbeat.wait_for_all()
    return 0


@pytest.mark.slow
@pytest.mark.parametrize(("what", "status"), [("one stops", 1), ("all stop", 0)])
def test_silent_process_is_lost_but_not_after_a_silence_of_all(capfd, monkeypatch, what, status):
    monkeypatch.setattr(module, "GRACE_SECONDS", 1)
    assert launch(impatient_meeting, what, processes=2) == status
    errors = capfd.readouterr().err
    assert errors.count("error: process 1 has given no sign of life for 2 seconds") == status


def test_strangers_on_the_port_neither_join_nor_stop_the_others(monkeypatch):
    monkeypatch.setattr(heartbeat, "BEAT_SECONDS", 0.2)
    met, key = heartbeat._Heartbeat.__new__(heartbeat._Heartbeat), b"0123456789abcdef"
    met.processes, found = 2, {}
    with Listener(("127.0.0.1", 0)) as listener:
        accepting = threading.Thread(target=met._accept, args=(listener, key, found), daemon=True)
        accepting.start()
        silent, wrong, long = (Client(listener.address) for _ in range(3))
        wrong.send_bytes(b"somebody else" * 2)
        long.send_bytes(b"x" * 10_000)
        friend = Client(listener.address)
        friend.send_bytes(key + b"1")
        accepting.join(timeout=20)
    assert list(found) == [1]
    for connection in (silent, wrong, long, friend):
        connection.close()


@pytest.mark.parametrize("way", ["returns", "fails", "exits"])
def test_group_of_processes_is_destroyed_on_every_way_out(way):
    def program(way):
        dist.init_process_group("gloo", rank=0, world_size=1, store=dist.HashStore())
        if way == "fails":
            raise RuntimeError("a fault")
        if way == "exits":
            raise SystemExit(3)
        return 0

    with contextlib.suppress(RuntimeError, SystemExit):
        launch(program, way)
    assert not dist.is_initialized()


def test_devices_are_taken_before_anything_lies_on_one(monkeypatch):
    events = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", lambda index: events.append(index))
    monkeypatch.setattr(module, "PartialState", lambda **keywords: events.append(keywords))
    monkeypatch.setattr(heartbeat, "start", lambda on_loss: events.append("peers"))
    monkeypatch.setattr(torch, "empty", lambda *_, **keywords: events.append(keywords))

    def joined(device, **variables):
        events.clear()
        with monkeypatch.context() as patch:
            for name, value in variables.items():
                patch.setenv(name, value)
            cfg = err_seg.get_cfg(None, ["MODEL.DEVICE", device])
            join_processes(cfg)
        return cfg.MODEL.DEVICE, events

    assert joined("cuda:1") == ("cuda:1", [1])
    assert joined("cuda") == ("cuda", [])
    assert joined("cuda:2") == ("cuda:2", [])  # which is not there, as is said later
    several = {"WORLD_SIZE": "2", "LOCAL_RANK": "1"}
    for device in ("auto", "cuda", "cuda:0"):
        assert joined(device, **several) == ("cuda:1", [1, {"cpu": False, "timeout": module.TIMEOUT}, "peers"])
    with pytest.raises(ConfigError, match="this machine has 2 GPUs"):
        joined("cuda", WORLD_SIZE="3", LOCAL_RANK="2")
