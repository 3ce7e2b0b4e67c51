"""On what, and by which metric, the best weights are chosen, and what is reported of a finished run."""

import json
import logging

import pytest

from err_seg.config import ConfigError
from err_seg.data import register, spec_from_dict
from err_seg.engine import trainer
from err_seg.models.checkpoint import open_checkpoint
from err_seg.utils.files import file_sha256
from tests.helpers.toy import VOCABULARY
from tests.helpers.training import declaration, lines, run, write_images

EVERY_2 = ("SOLVER.MAX_ITER", 4, "TEST.EVAL_PERIOD", 2)


@pytest.fixture
def choosing(tmp_path, toy_data):
    """Declare a third data set, "toy_choice"; return overrides that choose on it."""
    write_images(tmp_path, "toy_choice", 3, len(VOCABULARY), seed=2)
    entry = declaration(tmp_path, "toy_choice")
    register(spec_from_dict(entry))
    return (*EVERY_2, "DATASETS.VAL", ["toy_choice"], "DATASETS.CUSTOM", [*toy_data, entry])


@pytest.fixture
def evaluations(monkeypatch):
    """Record on what each evaluation is, and where it is written."""
    done, evaluate = [], trainer.evaluate
    monkeypatch.setattr(
        trainer, "evaluate", lambda cfg, model: done.append((cfg.DATASETS.TEST, cfg.OUTPUT_DIR)) or evaluate(cfg, model)
    )
    return done


def test_weights_are_chosen_on_val_and_test_is_only_reported(choosing, train_net, evaluations, tmp_path, caplog):
    status, output, _ = train_net(*choosing)
    assert status == 0
    out = tmp_path / "out"
    chosen = [(["toy_choice"], f"{out}/evaluations/iter_{done:07d}") for done in (2, 4)]
    assert evaluations == chosen  # and one more, on TEST, by the command
    assert list(json.loads((out / "results.json").read_text())["benchmarks"]) == ["toy_val"]
    assert "| toy_val" in output
    assert "toy_choice" not in output
    assert "so its result is too good" not in caplog.text


def test_without_val_a_warning_says_so_and_the_last_evaluation_is_the_report(train_net, evaluations, tmp_path, caplog):
    status, output, _ = train_net(*EVERY_2)
    assert status == 0
    out = tmp_path / "out"
    assert evaluations == [(["toy_val"], f"{out}/evaluations/iter_0000002"), (["toy_val"], str(out))]
    assert caplog.text.count("model_best.safetensors is chosen on what is reported (toy_val)") == 1
    (result,) = json.loads((out / "results.json").read_text())["benchmarks"].values()
    assert result["settings"]["weights"] == str(out / "model_final.safetensors")
    assert result["settings"]["source"]["sha256"] == file_sha256(out / "model_final.safetensors")
    assert f"{result['metrics']['mIoU']:.2f}" in output
    assert [line["iteration"] for line in lines(out) if "total_loss" not in line] == [1, 3]


def test_a_resumed_run_that_was_finished_evaluates_once_more(train_net, evaluations, tmp_path):
    assert train_net(*EVERY_2)[0] == 0
    before = json.loads((tmp_path / "out/results.json").read_text())
    evaluations.clear()
    assert train_net(*EVERY_2, "--resume")[0] == 0
    assert evaluations == []  # the command itself evaluates the file of weights
    after = json.loads((tmp_path / "out/results.json").read_text())
    assert after["benchmarks"]["toy_val"]["metrics"] == before["benchmarks"]["toy_val"]["metrics"]


def test_final_weights_are_written_before_they_are_evaluated(run_cfg, tmp_path, monkeypatch):
    def killed(cfg, model):
        if str(tmp_path / "out") == cfg.OUTPUT_DIR:
            raise KeyboardInterrupt
        return []

    monkeypatch.setattr(trainer, "evaluate", killed)
    with pytest.raises(KeyboardInterrupt):
        run(run_cfg("SOLVER.MAX_ITER", 1, "TEST.EVAL_PERIOD", 1))
    assert json.loads(open_checkpoint(tmp_path / "out/model_final.safetensors").metadata["iteration"]) == 1


def test_any_metric_of_an_evaluation_chooses_and_others_are_refused_first(run_cfg, tmp_path, caplog):
    with pytest.raises(ConfigError, match=r"TEST\.BEST_METRIC: toy_val has no metric 'IoU'; did you mean 'mIoU'"):
        run(run_cfg(*EVERY_2, "TEST.BEST_METRIC", "IoU"))
    with pytest.raises(ConfigError, match=r"toy_val has no metric 'mBoundaryIoU'; "):
        run(run_cfg(*EVERY_2, "TEST.BEST_METRIC", "mBoundaryIoU"))
    assert not (tmp_path / "out").exists()
    for metric, more in (("IoU-traffic light", ()), ("mBoundaryIoU", ("TEST.BOUNDARY_IOU", True))):
        with caplog.at_level(logging.INFO):
            run(run_cfg("SOLVER.MAX_ITER", 1, "TEST.EVAL_PERIOD", 1, "TEST.BEST_METRIC", metric, *more))
        assert f"the best weights so far, mean {metric} " in caplog.text
        assert metric in open_checkpoint(tmp_path / "out/model_best.safetensors").metadata
