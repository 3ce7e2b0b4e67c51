import json
import logging

import pytest
import torch
from PIL import Image

import err_seg
from err_seg.config import ConfigError
from err_seg.engine.run_log import RunLog, keep_lines_before
from tests.helpers.training import metrics, run


def test_metrics_are_lines_in_detectron2s_format(toy_cfg, tmp_path, caplog):
    cfg = toy_cfg("OUTPUT_DIR", str(tmp_path), "SOLVER.MAX_ITER", 10, "LOG.PERIOD", 4, "LOG.TENSORBOARD", False)
    log = RunLog(cfg, torch.device("cpu"), 0, {})
    with caplog.at_level(logging.INFO):
        for iteration in range(10):
            log.iteration(iteration, {"total_loss": float(iteration)}, lr=0.1, seconds=2.0, data_seconds=0.5)
    log.close()
    lines = [json.loads(line) for line in (tmp_path / "metrics.json").read_text().splitlines()]
    assert [line["iteration"] for line in lines] == [3, 7, 9]
    assert [line["total_loss"] for line in lines] == [1.5, 5.5, 8.5]
    assert [line["eta_seconds"] for line in lines] == [12.0, 4.0, 0.0]
    assert all((line["lr"], line["time"], line["data_time"]) == (0.1, 2.0, 0.5) for line in lines)
    assert all(line["max_mem"] > 10 for line in lines)
    assert "eta: 0:00:12  iter: 4/10  total_loss: 1.5000  time: 2.0000  data_time: 0.5000  lr: 0.1" in caplog.text


def test_lines_after_the_resumed_iteration_and_torn_ones_are_dropped(tmp_path):
    file = tmp_path / "metrics.json"
    file.write_text('{"iteration": 3}\n{"iteration": 7}\n{"iteration": 11}\n{"itera')
    keep_lines_before(file, 8)
    assert file.read_text() == '{"iteration": 3}\n{"iteration": 7}\n'
    keep_lines_before(tmp_path / "absent.json", 8)
    assert not (tmp_path / "absent.json").exists()


def test_run_leaves_configuration_environment_tensorboard_and_images(run_cfg, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    cfg = run_cfg("SOLVER.MAX_ITER", 4, "VIS_PERIOD", 2, "LOG.TENSORBOARD", True, "SEED", 3)
    run(cfg)
    output = tmp_path / "out"
    assert err_seg.get_cfg(output / "config.yaml") == cfg
    facts = json.loads((output / "environment.json").read_text())
    assert facts["seed"] == 3
    assert facts["packages"]["torch"] == torch.__version__.split("+")[0]
    assert facts["git"] is None or len(facts["git"]["commit"]) == 40
    events = EventAccumulator(str(output / "tensorboard"))
    events.Reload()
    assert [event.value for event in events.Scalars("total_loss")] == pytest.approx(metrics(output, "total_loss"))
    assert [event.step for event in events.Images("predictions")] == [1, 3]
    assert sorted(path.name for path in (output / "vis").iterdir()) == ["iter_0000002.png", "iter_0000004.png"]
    with Image.open(output / "vis/iter_0000002.png") as image:
        assert image.width >= 3 * cfg.INPUT.CROP_SIZE
        assert image.height > 4 * cfg.INPUT.CROP_SIZE


def test_images_of_predictions_do_not_change_the_training(run_cfg, tmp_path):
    run(run_cfg("SOLVER.MAX_ITER", 3, "MODEL.ESCF.DROP_PATH", 0.5))
    without = metrics(tmp_path / "out", "total_loss")
    run(run_cfg("SOLVER.MAX_ITER", 3, "MODEL.ESCF.DROP_PATH", 0.5, "VIS_PERIOD", 1))
    assert metrics(tmp_path / "out", "total_loss") == without


def test_missing_tracker_is_named_before_anything_is_written(run_cfg, tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda package: None)
    with pytest.raises(ConfigError, match=r"LOG\.WANDB_PROJECT = 'p' needs the package wandb: pip install wandb"):
        run(run_cfg("LOG.WANDB_PROJECT", "p"))
    assert not (tmp_path / "out").exists()


def test_weights_and_biases_gets_every_line_and_image(run_cfg, monkeypatch):
    import sys
    import types

    logged, finished = [], []
    wandb = types.ModuleType("wandb")
    wandb.__spec__ = types.SimpleNamespace()
    wandb.Image = lambda image: ("image", image.shape[2], image.dtype)
    wandb.init = lambda **options: types.SimpleNamespace(
        log=lambda values, step: logged.append((step, values, options)), finish=lambda: finished.append(True)
    )
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    run(run_cfg("SOLVER.MAX_ITER", 2, "LOG.WANDB_PROJECT", "err-seg", "VIS_PERIOD", 2))
    assert [step for step, _, _ in logged] == [0, 1, 1]
    assert logged[0][1]["total_loss"] > 0
    assert logged[0][2]["project"] == "err-seg"
    assert logged[0][2]["config"]["SOLVER"]["MAX_ITER"] == 2
    assert logged[2][1] == {"predictions": ("image", 3, "uint8")}
    assert finished == [True]
