import json

import pytest

from err_seg.engine import TrainingInterrupted
from err_seg.engine.trainer import PlainTrainer
from err_seg.utils.files import file_sha256
from tests.helpers.training import metrics


def test_trains_then_evaluates_then_evaluates_the_file(train_net, tmp_path):
    status, output, _ = train_net()
    assert status == 0
    assert "| toy_val" in output
    assert "copypaste: Task: sem_seg" in output
    assert "These metrics mean nothing" not in output  # of a network that was trained
    results = json.loads((tmp_path / "out/results.json").read_text())["benchmarks"]["toy_val"]
    final = tmp_path / "out/model_final.safetensors"
    assert results["settings"]["weights"] == str(final)
    status, output, _ = train_net("--eval-only", "MODEL.WEIGHTS", final, "OUTPUT_DIR", tmp_path / "again")
    assert status == 0
    assert "These metrics mean nothing" not in output
    again = json.loads((tmp_path / "again/results.json").read_text())["benchmarks"]["toy_val"]
    assert again["metrics"] == results["metrics"]
    assert again["settings"]["source"]["sha256"] == file_sha256(final)
    assert not (tmp_path / "again/metrics.json").exists()
    status, output, _ = train_net("--eval-only", "OUTPUT_DIR", tmp_path / "random")
    assert status == 0
    assert "These metrics mean nothing: all weights are random" in output


def test_resumes(train_net, tmp_path):
    assert train_net()[0] == 0
    assert train_net("--resume", "SOLVER.MAX_ITER", 2)[0] == 0
    assert metrics(tmp_path / "out", "iteration") == [0, 1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("SOLVER.MAX_ITR", "1"), "unknown key SOLVER.MAX_ITR"),
        (("SOLVER.IMS_PER_BATCH", "0"), "SOLVER.IMS_PER_BATCH must be positive"),
        (("SOLVER.ACCUMULATION_STEPS", "3"), "cannot be shared out evenly"),
        (("DATASETS.TRAIN", "['toy_trian']"), "did you mean 'toy_train'?"),
        (("DATASETS.TEST", "['toy_val', 'toy_val']"), "more than once"),
        (("--eval-only", "MODEL.WEIGHTS", "nowhere.pth"), "no checkpoint nowhere.pth"),
        (("--num-gpus", "0"), "--num-gpus 0"),
        (("OUTPUT_DIR", "/dev/null/out"), "/dev/null"),
    ],
)
def test_mistakes_are_one_line_and_status_1(train_net, arguments, message):
    status, _, errors = train_net(*arguments)
    assert status == 1
    told = [line for line in errors.splitlines() if "error:" in line]
    assert len(told) == 1
    assert message in told[0]
    assert "Traceback" not in errors


def test_benchmarks_are_checked_before_the_training(train_net, tmp_path):
    status, _, errors = train_net("DATASETS.TEST", "['ade20k_150_val']", "DATASETS.ROOT", tmp_path)
    assert status == 1
    assert "ade20k_150_val" in errors
    assert 'DATASETS.TEST "[]"' in errors
    assert not (tmp_path / "out/metrics.json").exists()
    status, output, _ = train_net("DATASETS.TEST", "[]")
    assert status == 0
    assert output.splitlines()[-1] == "Evaluated on nothing, as DATASETS.TEST is empty"
    assert "copypaste" not in output
    assert "|" not in output


def test_unexpected_exceptions_keep_their_traceback(train_net, monkeypatch):
    monkeypatch.setattr(PlainTrainer, "step", lambda *arguments: {}["surprise"])
    with pytest.raises(KeyError, match="surprise"):
        train_net()


def test_interruption_has_its_own_status(train_net, monkeypatch):
    def stop(*arguments):
        raise TrainingInterrupted("stopped", 15)

    monkeypatch.setattr(PlainTrainer, "step", stop)
    status, _, errors = train_net()
    assert status == 143
    assert errors.splitlines()[-1] == "SIGTERM: stopped"
