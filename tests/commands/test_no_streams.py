"""Processes without standard streams, as under pythonw and in services: they work as others do."""

import os
import subprocess
import sys

import numpy as np
import pytest

from err_seg.engine import evaluate
from err_seg.utils import heartbeat
from tests.helpers.predicting import save
from tests.helpers.training import command, environment, metrics

NAMES = [f"thing {number}" for number in range(300)]  # enough for a bar of the text embeddings


@pytest.fixture
def no_streams(monkeypatch):
    for name in ("stdin", "stdout", "stderr"):
        monkeypatch.setattr(sys, name, None)


def test_functions_give_the_same_results(toy_model, run_cfg, images, monkeypatch):
    model = toy_model()
    model.vocabulary_encoder.embeddings.cache_dir = None
    expected = [result.labels for result in model.predict(images, NAMES)]
    (score,) = evaluate(run_cfg(), model)
    model.vocabulary_encoder.embeddings._memory.clear()
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    found = [result.labels for result in model.predict(images, NAMES, progress=True)]
    assert all(map(np.array_equal, found, expected))
    assert evaluate(run_cfg(), model)[0].metrics == pytest.approx(score.metrics, nan_ok=True)


def closed(*arguments):
    """Run a program whose standard streams are closed."""
    return subprocess.run(
        ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *map(str, arguments)], env=environment(), timeout=200
    )


@pytest.mark.parametrize("program", [("-m", "err_seg", "predict"), ("tools/predict.py",)])
def test_a_command_writes_its_results(tmp_path, program):
    save(tmp_path / "a.png")
    line = [sys.executable, *program, tmp_path / "a.png", "--model", "mini", "--classes", "red circle, green square"]
    assert closed(*line, "--output", tmp_path / "out").returncode == 0
    assert subprocess.run([*line, "--output", tmp_path / "usual"], env=environment(), timeout=200).returncode == 0
    found, usual = ({file.name: file.read_bytes() for file in tmp_path.glob(f"{to}/*.png")} for to in ("out", "usual"))
    assert found == usual != {}
    assert closed(*line, "--no-such-option").returncode == 2
    line[line.index(tmp_path / "a.png")] = "-"
    assert closed(*line, "--output", tmp_path / "none").returncode == 1, "the standard input is empty"


def test_a_training_writes_its_results(run_cfg, tmp_path):
    assert closed(*command(run_cfg("SOLVER.MAX_ITER", 1), tmp_path / "run.yaml")).returncode == 0
    assert metrics(tmp_path / "out", "iteration") == [0]
    assert (tmp_path / "out/results.json").is_file()


def test_the_hubs_bars_are_off(tmp_path):
    program = "import sys, err_seg.models.hub_files; from huggingface_hub import utils\n"
    program += "sys.exit(7 * utils.are_progress_bars_disabled())"
    assert closed(sys.executable, "-c", program).returncode == 7


def test_a_process_whose_peers_are_lost_ends(no_streams, monkeypatch):
    ends, peers = [], object.__new__(heartbeat._Heartbeat)
    peers._stopped, peers.report = heartbeat.threading.Event(), lambda: None
    monkeypatch.setattr(os, "_exit", ends.append)
    peers._end()
    assert ends == [1]
