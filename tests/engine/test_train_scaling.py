"""Loss scaling, tried on the CPU with torch's own scaler for it."""

import logging
import re
import warnings
from contextlib import closing
from pathlib import Path

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import err_seg
from err_seg.engine import TrainingError, optimizer
from err_seg.engine import trainer as run_module
from err_seg.engine.loss_monitor import LOSSES_SKIPPED
from tests.helpers.training import assert_resumes_exactly, assert_same_weights, lines, metrics, run, training_state


@pytest.fixture
def scaled(monkeypatch):
    """Return a function that makes runs scale their losses, from a given scale on."""
    build = run_module.build_accelerator

    def scale_from(scale, **options):
        def with_scaler(*arguments):
            accelerator = build(*arguments)
            accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=scale, **options)
            return accelerator

        monkeypatch.setattr(run_module, "build_accelerator", with_scaler)

    return scale_from


@pytest.fixture
def fused(monkeypatch):
    """Build AdamW as on CUDA."""
    adamw = torch.optim.AdamW.__init__
    monkeypatch.setattr(torch.optim.AdamW, "__init__", lambda *a, **options: adamw(*a, **{**options, "fused": True}))


def times(factor, terms):
    return {name: factor * term for name, term in terms.items()}


def break_losses(monkeypatch, broken, value=float("nan")):
    """Let the losses of some calls be no numbers."""
    loss, calls = run_module.training_loss, []

    def breaking(*arguments):
        calls.append(None)
        return times(value if len(calls) - 1 in broken else 1.0, loss(*arguments))

    monkeypatch.setattr(run_module, "training_loss", breaking)


@pytest.fixture
def skipping(scaled, monkeypatch):
    """Let every other step be skipped, from the first on: 4 times a loss overflows at one scale and not at the next."""
    loss = run_module.training_loss
    monkeypatch.setattr(run_module, "training_loss", lambda *arguments: times(4, loss(*arguments)))
    scaled(2.0**127, growth_factor=4.0, backoff_factor=0.25, growth_interval=1)


@pytest.mark.parametrize("way", ["plain", "fused"])
def test_steps_skipped_before_at_and_after_a_checkpoint(run_cfg, tmp_path, monkeypatch, skipping, way, request):
    if way == "fused":
        request.getfixturevalue("fused")
    options = ("SOLVER.CHECKPOINT_PERIOD", 1, "SOLVER.CHECKPOINTS_KEPT", 6, "MODEL.ESCF.DROP_PATH", 0.5)
    options += ("MODEL.CLIP.IMAGE_TUNING", "none", "MODEL.CLIP.TEXT_TUNING", "none", "LOG.PERIOD", 2)
    assert_resumes_exactly(run_cfg, tmp_path, monkeypatch, *options, stops=(1, 2, 3, 4, 5))
    states = [training_state(tmp_path / "straight", iteration) for iteration in range(1, 7)]
    assert [state["skipped"] for state in states] == [1, 1, 2, 2, 3, 3]
    assert lines(tmp_path / "straight")[-1]["skipped_steps"] == 3
    assert lines(tmp_path / "straight")[-1]["loss_scale"] == states[-1]["scaler"]["scale"]


def test_where_every_step_was_skipped_there_is_nothing_to_go_on_with_but_the_run_does(run_cfg, tmp_path, skipping):
    run(run_cfg("SOLVER.MAX_ITER", 1, "SOLVER.CHECKPOINT_PERIOD", 1))
    state = training_state(tmp_path / "out", 1)
    assert set(map(len, state["optimizer"].values())) == {0}
    run(run_cfg("SOLVER.MAX_ITER", 2), resume=True)
    assert metrics(tmp_path / "out", "iteration") == [0, 1]
    with pytest.raises(TrainingError, match="_TUNING"):
        run(run_cfg("SOLVER.MAX_ITER", 4, "MODEL.CLIP.TEXT_TUNING", "none"), resume=True)


def test_state_without_names_as_earlier_versions_left_it(run_cfg, toy_model):
    cfg = run_cfg()
    adamw = optimizer.build_optimizer(toy_model(), cfg)
    optimizer.restore_optimizer_state(adamw, {})
    assert not adamw.state


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_losses_that_are_no_numbers_skip_steps_up_to_a_bound(run_cfg, tmp_path, monkeypatch, scaled, caplog, value):
    scaled(1.0)
    break_losses(monkeypatch, {1, 2, 4}, value)
    with caplog.at_level(logging.WARNING):
        run(run_cfg("SOLVER.CHECKPOINT_PERIOD", 1, "SOLVER.CHECKPOINTS_KEPT", 6))
    assert re.search(rf"the loss is {value} at iteration 1, images \S+\.png, .*its step is skipped", caplog.text)
    assert f"(2 in a row, of at most {LOSSES_SKIPPED})" in caplog.text
    states = [training_state(tmp_path / "out", iteration) for iteration in range(1, 7)]
    assert [state["broken"] for state in states] == [0, 1, 2, 0, 1, 0]
    assert [state["skipped"] for state in states] == [0, 1, 2, 2, 3, 3]
    folder = tmp_path / "out/checkpoints"
    assert_same_weights(*(folder / f"iter_000000{n}/model.safetensors" for n in (1, 3)))
    assert [line["total_loss"] is None for line in lines(tmp_path / "out")] == [False, True, True, False, True, False]


def test_too_many_losses_in_a_row_end_the_run_and_resuming_does_not_forget_them(run_cfg, tmp_path, monkeypatch, scaled):
    scaled(1.0)
    break_losses(monkeypatch, range(2, 100))
    options = ("SOLVER.MAX_ITER", 30, "SOLVER.CHECKPOINT_PERIOD", 5)
    last = 2 + LOSSES_SKIPPED
    with pytest.raises(TrainingError, match=rf"the loss is nan at iteration {last}, images .*iter_0000010"):
        run(run_cfg(*options))
    monkeypatch.undo()
    scaled(1.0)
    break_losses(monkeypatch, range(100))
    with pytest.raises(TrainingError, match=f"at iteration {last}, "):
        run(run_cfg(*options), resume=True)


def test_without_loss_scaling_the_first_one_ends_the_run_and_is_never_saved(run_cfg, tmp_path, monkeypatch):
    break_losses(monkeypatch, {3})
    with pytest.raises(TrainingError, match="the loss is nan at iteration 3"):
        run(run_cfg("SOLVER.CHECKPOINT_PERIOD", 1, "SOLVER.CHECKPOINTS_KEPT", 6, "VIS_PERIOD", 1))
    assert len(list((tmp_path / "out/checkpoints").iterdir())) == 3
    assert len(list((tmp_path / "out/vis").iterdir())) == 3


def test_nothing_warns_of_the_order_of_optimizer_and_schedule(run_cfg, skipping):
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*optimizer.step.*")
        run(run_cfg())


class NoWaiting(TorchDispatchMode):
    """Refuses what makes the host wait for a device."""

    WAITS = ("_local_scalar_dense", "nonzero", "masked_select", "equal", "is_nonzero", "unique")

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        indices = args[1] if func.overloadpacket.__name__ in ("index", "index_put", "index_put_") else ()
        masks = [index for index in indices if index is not None and index.dtype == torch.bool]
        assert func.overloadpacket.__name__ not in self.WAITS, f"{func} waits for the device"
        assert not masks, f"{func} with a mask waits for the device"
        return func(*args, **(kwargs or {}))


def test_host_waits_for_nothing_in_an_iteration(run_cfg, monkeypatch, scaled, fused):
    scaled(1.0)
    clip = ("SOLVER.CLIP_GRADIENTS.ENABLED", True, "SOLVER.CLIP_GRADIENTS.CLIP_TYPE", "full_model")
    cfg = run_cfg(*clip, "SOLVER.EMA.ENABLED", True, "SOLVER.ACCUMULATION_STEPS", 2)
    with closing(run_module.PlainTrainer(cfg, err_seg.build_model(cfg), resume=False)) as training:
        training._batches = iter([next(training._batches) for _ in range(6)])  # reading files is the host's own affair
        training.step()  # makes the optimizer's state
        with NoWaiting():
            training.step()
            training.step()
        training.monitor.check()
        with pytest.raises(AssertionError, match="waits"), NoWaiting():
            torch.ones(1).item()
    assert metrics(Path(cfg.OUTPUT_DIR), "iteration") == [0, 1, 2]


def test_iterations_are_read_one_late_and_all_before_anything_is_kept(run_cfg, tmp_path, monkeypatch):
    cfg = run_cfg("TEST.EVAL_PERIOD", 4, "VIS_PERIOD", 3)
    with closing(run_module.PlainTrainer(cfg, err_seg.build_model(cfg), resume=False)) as training:
        for done, keep in enumerate((training.save, training.show, training.evaluate), start=1):
            training.step()
            assert len(metrics(tmp_path / "out", "iteration")) == done - 1
            keep()
            assert len([line for line in lines(tmp_path / "out") if "total_loss" in line]) == done


@pytest.mark.parametrize("way", ["plain", "fused"])
@pytest.mark.parametrize("kind", ["value", "norm", "full_model"])
def test_gradients_are_clipped_after_the_scale_is_taken_off(run_cfg, tmp_path, scaled, kind, way, request):
    if way == "fused":
        request.getfixturevalue("fused")
    clip = ("SOLVER.CLIP_GRADIENTS.ENABLED", True, "SOLVER.CLIP_GRADIENTS.CLIP_TYPE", kind)
    clip += ("SOLVER.CLIP_GRADIENTS.CLIP_VALUE", 1e-3)
    run(run_cfg(*clip, "OUTPUT_DIR", str(tmp_path / "unscaled")))
    scaled(1024.0, growth_interval=100)
    run(run_cfg(*clip))
    assert_same_weights(tmp_path / "unscaled/model_final.safetensors", tmp_path / "out/model_final.safetensors")
