import json

import numpy as np
import pytest
import torch
from safetensors import safe_open

import err_seg
from err_seg.config import ConfigError
from err_seg.data import Batch, DatasetError
from err_seg.engine import evaluate, periodic_eval
from tests.helpers.training import assert_resumes_exactly, assert_same_weights, lines, run, training_state

EVERY_2 = ("TEST.EVAL_PERIOD", 2, "MODEL.ESCF.DROP_PATH", 0.5)


def evaluated(folder):
    """Read the lines of evaluations: iteration to figures."""
    return {line.pop("iteration"): line for line in lines(folder) if "total_loss" not in line}


def test_evaluation_is_that_of_the_checkpoint_and_disturbs_nothing(run_cfg, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run(run_cfg(*EVERY_2, "TEST.EVAL_PERIOD", 4, "SOLVER.CHECKPOINTS_KEPT", 9, "LOG.TENSORBOARD", True))
    found = evaluated(tmp_path / "out")
    assert list(found) == [3, 5]  # every fourth, and the last
    for iteration, figures in found.items():
        weights = tmp_path / f"out/checkpoints/iter_{iteration + 1:07d}/model.safetensors"
        cfg = run_cfg("MODEL.WEIGHTS", str(weights), "OUTPUT_DIR", str(tmp_path / "again"))
        (result,) = evaluate(cfg, err_seg.build_model(cfg))
        assert set(figures) == {f"sem_seg/{name}" for name in ("mIoU", "mIoU-v0.6", "fwIoU", "mACC", "pACC")}
        assert figures == {name: result.metrics[name.removeprefix("sem_seg/")] for name in figures}
        folder, source = tmp_path / f"out/evaluations/iter_{iteration + 1:07d}", f"iteration {iteration + 1} of "
        if iteration == 5:  # the last one is that of the finished run
            folder, source = tmp_path / "out", ""
        written = json.loads((folder / "results.json").read_text())["benchmarks"]["toy_val"]
        assert written["metrics"]["mIoU"] == result.metrics["mIoU"]
        assert written["settings"]["weights"] == f"{source}{tmp_path / 'out'}" + "/model_final.safetensors" * (
            not source
        )
    events = EventAccumulator(str(tmp_path / "out/tensorboard"))
    events.Reload()
    assert [event.step for event in events.Scalars("sem_seg/mIoU")] == [3, 5]

    run(run_cfg(*EVERY_2, "TEST.EVAL_PERIOD", 0, "OUTPUT_DIR", str(tmp_path / "without")))
    assert_same_weights(tmp_path / "out/model_final.safetensors", tmp_path / "without/model_final.safetensors")
    losses = [line for line in lines(tmp_path / "out") if "total_loss" in line]
    assert losses == lines(tmp_path / "without")


def test_best_weights_are_kept_and_say_of_what(run_cfg, tmp_path, monkeypatch):
    figures = iter((3.0, 5.0, 5.0))
    monkeypatch.setattr(periodic_eval, "mean_metric", lambda results, name: next(figures))
    run(run_cfg(*EVERY_2, "TEST.BEST_METRIC", "pACC", "SOLVER.CHECKPOINTS_KEPT", 9))
    best = tmp_path / "out/model_best.safetensors"
    assert_same_weights(best, tmp_path / "out/checkpoints/iter_0000004/model.safetensors")
    with safe_open(best, "pt") as file:
        facts = file.metadata()
    assert (json.loads(facts["iteration"]), json.loads(facts["pACC"])) == (4, 5.0)
    assert [training_state(tmp_path / "out", iteration)["best"] for iteration in (2, 4, 6)] == [3.0, 5.0, 5.0]


def test_several_benchmarks_have_their_names_and_undefined_figures_are_left_out(toy_data):
    metrics = {"mIoU": 1.0, "mIoU-v0.6": 2.0, "pACC": float("nan"), "IoU-cat": 4.0, "min(IoU, B-Iou)-cat": 4.0}
    results = [periodic_eval.BenchmarkResult(name, metrics, ["cat"], [1], 1) for name in ("a", "b")]
    expected = {f"{name}/sem_seg/{figure}": metrics[figure] for name in "ab" for figure in ("mIoU", "mIoU-v0.6")}
    assert periodic_eval.scalar_metrics(results) == expected
    assert periodic_eval.scalar_metrics(results[:1]) == {"sem_seg/mIoU": 1.0, "sem_seg/mIoU-v0.6": 2.0}
    assert periodic_eval.mean_metric(results, "mIoU") == 1.0


@pytest.mark.parametrize("more", [(), ("SOLVER.EMA.ENABLED", True, "SOLVER.EMA.DECAY", 0.5)], ids=["plain", "averaged"])
def test_resumes_exactly(run_cfg, tmp_path, monkeypatch, more):
    assert_resumes_exactly(run_cfg, tmp_path, monkeypatch, *EVERY_2, *more)
    assert (tmp_path / "straight/model_best.safetensors").is_file()


def test_the_average_is_what_is_evaluated(run_cfg, tmp_path):
    run(run_cfg(*EVERY_2, "TEST.EVAL_PERIOD", 6, "SOLVER.EMA.ENABLED", True, "SOLVER.EMA.DECAY", 0.5))
    assert_same_weights(tmp_path / "out/model_best.safetensors", tmp_path / "out/model_final.safetensors")


def test_nothing_to_evaluate_on_is_told_before_anything_is_written(run_cfg, tmp_path):
    with pytest.raises(ConfigError, match=r"TEST\.EVAL_PERIOD needs .* DATASETS\.TEST"):
        run(run_cfg(*EVERY_2, "DATASETS.TEST", []))
    with pytest.raises(DatasetError, match="no_such"):
        run(run_cfg(*EVERY_2, "DATASETS.TEST", ["no_such"]))
    assert not (tmp_path / "out").exists()


def test_images_that_were_padded_by_a_mean_are_drawn():
    batch = Batch(torch.full((1, 3, 40, 60), 121.5), torch.zeros(1, 40, 60, dtype=torch.int64), ["a.png"])
    image = periodic_eval.compare(batch, np.ones((1, 40, 60), dtype=np.int64), ["cat", "dog"])
    assert (np.asarray(image) == 121).all(axis=2).sum() >= 40 * 60
