"""The calls through which a training batch reaches the network: few enough to follow in one reading."""

import traceback
from pathlib import Path

from torch.nn.modules.module import register_module_forward_pre_hook

import err_seg
from err_seg import commands
from err_seg.prediction.model import ERRSeg


def test_seven_calls_lead_from_the_command_to_the_network(run_cfg, tmp_path):
    file, package, paths = tmp_path / "run.yaml", Path(err_seg.__file__).parent, []
    file.write_text(run_cfg("SOLVER.MAX_ITER", 1, "DATASETS.TEST", []).dump())

    def record(module, inputs):
        if isinstance(module, ERRSeg) and module.training:
            frames = traceback.extract_stack()
            paths.append([frame.name for frame in frames if package in Path(frame.filename).parents])

    hook = register_module_forward_pre_hook(record)
    try:
        assert commands.main(["train", "--config-file", str(file), "--engine", "plain"]) == 0
    finally:
        hook.remove()
    assert paths == [["main", "main", "launch", "work", "train", "step", "training_loss"]]
