"""Several machines, each with a command of its own; here they are processes that share nothing but a folder."""

import json
import os
from pathlib import Path

import pytest
import torch

import err_seg
from err_seg.config import ConfigError
from err_seg.data import register, spec_from_dict
from err_seg.engine import evaluate, train
from err_seg.engine.checkpoints import Checkpoints, read_checkpoint_folder
from err_seg.engine.launch import join_processes, launch
from err_seg.models.checkpoint import open_checkpoint
from tests.helpers.processes import join, start_machines
from tests.helpers.training import metrics, run, wait_for

# images of an iteration are summed in another order than by one machine: nothing else may differ
ITERATIONS = 20
SAME = ("MODEL.ESCF.DROP_PATH", 0.0, "SOLVER.MAX_ITER", ITERATIONS, "SOLVER.CHECKPOINT_PERIOD", 3)


def test_killed_machine_stops_both_and_both_resume_to_the_weights_and_figures_of_one(run_cfg, tmp_path):
    cfg = run_cfg(*SAME)
    machines = start_machines(cfg, tmp_path)
    wait_for(tmp_path / "out/checkpoints/iter_0000003", machines[0], seconds=300)
    machines[1].terminate()
    statuses, told = join(machines)
    assert statuses == [143, 143], told
    assert "Traceback" not in "".join(told)
    newest = Checkpoints(tmp_path / "out", kept=2).newest_first()[0]
    stopped = read_checkpoint_folder(newest).iteration
    assert stopped == len(metrics(tmp_path / "out", "iteration")) < ITERATIONS

    statuses, told = join(start_machines(cfg, tmp_path, "--resume"))
    assert statuses == [0, 0], told
    assert f"resuming from {newest}" in told[0]
    assert json.loads((tmp_path / "out/environment.json").read_text())["processes"] == 2

    alone = run_cfg(*SAME, "OUTPUT_DIR", str(tmp_path / "alone"))
    run(alone)
    assert metrics(tmp_path / "out", "iteration") == list(range(ITERATIONS))
    assert metrics(tmp_path / "out", "total_loss") == pytest.approx(metrics(tmp_path / "alone", "total_loss"), rel=1e-5)
    one, two = (open_checkpoint(tmp_path / name / "model_final.safetensors").weights for name in ("alone", "out"))
    assert one.keys() == two.keys()
    for key, weight in one.items():
        # AdamW turns the rounding of a gradient near zero into a step of up to the learning rate
        assert (weight.float() - two[key].float()).abs().median() <= 1e-6, key

    # their figures are those of one machine with the same weights, exactly
    again = err_seg.build_model(run_cfg("MODEL.WEIGHTS", str(tmp_path / "out/model_final.safetensors")))
    (expected,) = evaluate(alone, again)
    found = json.loads((tmp_path / "out/results.json").read_text())["benchmarks"]["toy_val"]
    assert (found["class_pixels"], found["pictures"]) == (expected.class_pixels, 7)
    figures = {key: value for key, value in found["metrics"].items() if value is not None}
    assert figures == {key: value for key, value in expected.metrics.items() if value == value}


def refused_everywhere(cfg):
    """Train and evaluate, each process with an output folder of its own; write what each says about it."""
    torch.set_num_threads(1)
    join_processes(cfg)
    for entry in cfg.DATASETS.CUSTOM:
        register(spec_from_dict(entry))
    folder = Path(cfg.OUTPUT_DIR)
    cfg.OUTPUT_DIR = str(folder / os.environ["RANK"])
    for work in (train, evaluate):
        try:
            work(cfg, err_seg.build_model(cfg))
        except ConfigError as error:
            (folder / f"{work.__name__}-{os.environ['RANK']}").write_text(str(error))
    return 0


def test_machines_without_a_shared_folder_are_refused(run_cfg, tmp_path):
    (tmp_path / "out").mkdir()
    assert launch(refused_everywhere, run_cfg(), processes=2) == 0
    for work in ("train", "evaluate"):
        for rank in (0, 1):
            message = (tmp_path / f"out/{work}-{rank}").read_text()
            assert f"OUTPUT_DIR {tmp_path}/out/{rank} is not one folder for all: process 1 does not see" in message
    assert not [path for path in (tmp_path / "out").rglob("*") if path.name.startswith((".shared", "checkpoints"))]
