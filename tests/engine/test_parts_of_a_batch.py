"""A global batch gives one step, however it is shared out over processes and parts, and whatever is wrapped around."""

from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.optim.optimizer import register_optimizer_step_pre_hook

import err_seg
from err_seg.data import register, spec_from_dict
from err_seg.engine.launch import join_processes, launch
from err_seg.engine.parallel import activation_checkpointing
from err_seg.engine.trainer import PlainTrainer
from tests.helpers.toy import VOCABULARY, liven
from tests.helpers.training import declaration, metrics, write_images


@pytest.fixture(scope="module")
def toy_world(tmp_path_factory):
    """Images of which some are ignored nearly everywhere and others nowhere."""
    root = tmp_path_factory.mktemp("unequal_world")
    for name in ("toy_train", "toy_val"):
        write_images(root, name, 10, len(VOCABULARY))
    for index, file in enumerate(sorted((root / "toy_train/labels").iterdir())):
        labels = np.array(Image.open(file))
        labels[: round(len(labels) * (index % 4) / 3.2)] = 255
        Image.fromarray(labels).save(file)
    return [declaration(root, "toy_train"), declaration(root, "toy_val")]


def step_as(cfgs):
    """Do two iterations as each configuration says; write the gradients of each, and leave a log."""
    torch.set_num_threads(1)
    for cfg in cfgs:
        join_processes(cfg)
        for entry in cfg.DATASETS.CUSTOM:
            register(spec_from_dict(entry))
        model = err_seg.build_model(cfg)
        liven(model)
        buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
        with (
            activation_checkpointing(model, cfg),
            closing(PlainTrainer(cfg, model, resume=False)) as run,
        ):
            if run.processes > 1 and run.network.broadcast_buffers:
                return 4
            gradients = []
            hook = register_optimizer_step_pre_hook(
                lambda *_, model=model, gradients=gradients: gradients.append(
                    {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
                )
            )
            for _ in range(cfg.SOLVER.MAX_ITER):
                run.step()
            hook.remove()
            if not all(torch.equal(buffer, buffers[name]) for name, buffer in model.named_buffers()):
                return 5  # constants need not be sent around
            if run.is_main:
                torch.save(gradients, Path(cfg.OUTPUT_DIR) / "gradients.pt")
    return 0


def assert_same_steps(output, expected):
    """Compare losses and gradients of two runs."""
    losses, expected_losses = metrics(output, "total_loss"), metrics(expected, "total_loss")
    assert losses == pytest.approx(expected_losses, rel=1e-5), output.name
    gradients, expected_gradients = (torch.load(folder / "gradients.pt") for folder in (output, expected))
    # the second iteration starts from weights that AdamW has moved by a rounding of gradients near zero
    assert gradients[0].keys() == expected_gradients[0].keys()
    for name, gradient in expected_gradients[0].items():
        torch.testing.assert_close(gradients[0][name], gradient, rtol=1e-4, atol=1e-6, msg=f"{output.name}: {name}")


def configurations(run_cfg, folder, ways):
    """Return the configuration of each way, by its name."""
    same = ("SOLVER.MAX_ITER", 2, "MODEL.ESCF.DROP_PATH", 0.0)
    return {name: run_cfg(*same, *way, "OUTPUT_DIR", str(folder / name)) for name, way in ways.items()}


def test_unequal_ignored_pixels_over_processes_and_parts(run_cfg, tmp_path):
    without = ("MODEL.LOSS.IGNORED_ARE_NEGATIVES", False)
    two, four = ("SOLVER.ACCUMULATION_STEPS", 2), ("SOLVER.ACCUMULATION_STEPS", 4)
    alone = {"whole": without, "parts": (*without, *four), "default": ()}
    shared = {"ranks": without, "ranks_parts": (*without, *two), "default_ranks": two}
    assert step_as(configurations(run_cfg, tmp_path, alone).values()) == 0
    assert launch(step_as, list(configurations(run_cfg, tmp_path, shared).values()), processes=2) == 0
    for name in ("parts", "ranks", "ranks_parts"):
        assert_same_steps(tmp_path / name, tmp_path / "whole")
    assert_same_steps(tmp_path / "default_ranks", tmp_path / "default")


@pytest.mark.slow
def test_processes_parts_recomputation_and_compiler_together(run_cfg, tmp_path):
    loss = ("MODEL.LOSS.IGNORED_ARE_NEGATIVES", False)
    way = ("SOLVER.ACCUMULATION_STEPS", 2, "SOLVER.ACTIVATION_CHECKPOINTING", True, "SOLVER.COMPILE", "aot_eager")
    ways = {what: (*loss, *way, "SOLVER.RECOMPUTED", what) for what in ("blocks", "elementwise")}
    cfgs = configurations(run_cfg, tmp_path, {"whole": loss, **ways})
    assert step_as([cfgs["whole"]]) == 0
    for what in ways:
        assert launch(step_as, [cfgs[what]], processes=2) == 0
        assert_same_steps(tmp_path / what, tmp_path / "whole")
