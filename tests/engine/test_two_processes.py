import json
import subprocess
from pathlib import Path

import pytest
import torch

import err_seg
from err_seg.config import ConfigError
from err_seg.data import register, spec_from_dict
from err_seg.engine import evaluate, train
from err_seg.engine.launch import join_processes, launch
from err_seg.models.checkpoint import open_checkpoint
from tests.helpers.training import command, environment, metrics, run, wait_for

# images of an iteration are summed in another order: nothing else may differ
NO_DROP_PATH = ("MODEL.ESCF.DROP_PATH", 0.0, "SOLVER.MAX_ITER", 3)
WAYS = {
    "ddp": ("SOLVER.ACCUMULATION_STEPS", 2),
    "fsdp": ("SOLVER.PARALLEL", "fsdp", "SOLVER.ACTIVATION_CHECKPOINTING", True, "VIS_PERIOD", 1),
    "fsdp_parts": ("SOLVER.PARALLEL", "fsdp", "SOLVER.ACCUMULATION_STEPS", 2),
}


def train_and_evaluate(cfgs):
    """Train and evaluate as each configuration says, in one of several processes."""
    for cfg in cfgs:
        torch.set_num_threads(1)
        join_processes(cfg)
        for entry in cfg.DATASETS.CUSTOM:
            register(spec_from_dict(entry))
        model = err_seg.build_model(cfg)
        train(cfg, model)
        is_shared_out = any(type(p.data).__name__ == "DTensor" for p in model.parameters())
        if is_shared_out != (cfg.SOLVER.PARALLEL == "fsdp"):
            return 3
        cfg.MODEL.WEIGHTS = str(Path(cfg.OUTPUT_DIR) / "model_final.safetensors")
        evaluate(cfg, err_seg.build_model(cfg))
    return 0


def test_two_processes_train_and_evaluate_as_one_does(run_cfg, tmp_path):
    alone = run_cfg(*NO_DROP_PATH)
    run(alone)
    cfgs = [run_cfg(*NO_DROP_PATH, *way, "OUTPUT_DIR", str(tmp_path / name)) for name, way in WAYS.items()]
    assert launch(train_and_evaluate, cfgs, processes=2) == 0

    one = open_checkpoint(tmp_path / "out/model_final.safetensors").weights
    for name in WAYS:
        output = tmp_path / name
        assert metrics(output, "iteration") == [0, 1, 2]
        assert metrics(output, "total_loss") == pytest.approx(metrics(tmp_path / "out", "total_loss"), rel=1e-5), name
        assert json.loads((output / "environment.json").read_text())["processes"] == 2
        two = open_checkpoint(output / "model_final.safetensors").weights
        assert one.keys() == two.keys()
        for key, weight in one.items():
            # AdamW turns the rounding of a gradient near zero into a step of up to the learning rate
            assert (weight.float() - two[key].float()).abs().median() <= 1e-5, (name, key)

        # the figures of two processes are those of one, exactly
        again = err_seg.build_model(run_cfg("MODEL.WEIGHTS", str(output / "model_final.safetensors")))
        (expected,) = evaluate(alone, again)
        found = json.loads((output / "results.json").read_text())["benchmarks"]["toy_val"]
        assert (found["class_pixels"], found["pictures"]) == (expected.class_pixels, 7)
        figures = {key: value for key, value in found["metrics"].items() if value is not None}
        assert figures == {key: value for key, value in expected.metrics.items() if value == value}
        assert not list(output.rglob("partial-*"))

    # what two processes saved in parts, one goes on with
    longer = (*NO_DROP_PATH, "SOLVER.MAX_ITER", 4)
    for name in ("out", "fsdp"):
        run(run_cfg(*longer, "OUTPUT_DIR", str(tmp_path / name)), resume=True)
    assert metrics(tmp_path / "fsdp", "total_loss") == pytest.approx(metrics(tmp_path / "out", "total_loss"), rel=1e-4)


def test_sigterm_stops_both_processes_with_one_checkpoint(run_cfg, tmp_path):
    cfg = run_cfg("SOLVER.MAX_ITER", 100_000, "SOLVER.CHECKPOINT_PERIOD", 3)
    line = command(cfg, tmp_path / "run.yaml", "--num-gpus", "2")
    process = subprocess.Popen(line, env=environment(), stderr=subprocess.PIPE, text=True)
    wait_for(tmp_path / "out/checkpoints/iter_0000003", process)
    process.terminate()
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 143, errors
    assert errors.count("SIGTERM: stopped after") == 1
    newest = max((tmp_path / "out/checkpoints").iterdir())
    assert torch.load(newest / "training.pt", weights_only=True)["iteration"] == len(metrics(tmp_path / "out", "lr"))


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"processes": 0}, "--num-gpus 0"),
        ({"machines": 2, "machine_rank": 2}, r"--machine-rank 2 one of 0\.\.1"),
        ({"machines": 2}, "--dist-url must be like tcp://"),
        ({"processes": 2, "dist_url": "tcp://host"}, "--dist-url must be like tcp://"),
    ],
)
def test_launch_checks_its_numbers(numbers, message):
    with pytest.raises(ConfigError, match=message):
        launch(int, 0, **numbers)
