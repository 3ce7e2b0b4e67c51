"""Device, precision, TF32 and determinism: what is chosen, why, and that it is put back."""

import json
import logging
import os
from pathlib import Path

import pytest
import torch

import err_seg
from err_seg.engine import evaluate
from err_seg.engine.trainer import PlainTrainer
from err_seg.utils.device import deterministic, read_tf32, resolve_precision, tf32
from tests.helpers.training import run

OFF, ON = ("ieee", "ieee"), ("tf32", "tf32")
CUDA, CPU = torch.device("cuda", 0), torch.device("cpu")


@pytest.mark.parametrize(
    ("capability", "name", "reason"),
    [((7, 0), "fp16", "emulate"), ((7, 5), "fp16", "emulate"), ((8, 0), "bf16", "natively"), ((9, 0), "bf16", "nativ")],
)
def test_auto_takes_bf16_where_it_is_native(monkeypatch, capability, name, reason):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    chosen = resolve_precision("auto", CUDA)
    assert chosen.name == name
    assert reason in chosen.reason
    assert resolve_precision("fp16", CUDA) == ("fp16", "as configured")


def test_auto_is_fp32_on_the_cpu():
    chosen = resolve_precision("auto", CPU)
    assert chosen.name == "fp32"
    assert "cpu" in chosen.reason


def test_tf32_blocks_are_put_back_in_whatever_order_they_end():
    before = read_tf32()
    outer, inner = tf32(False), tf32(True)
    with outer:
        assert read_tf32() == OFF
        with inner:
            assert read_tf32() == ON
        assert read_tf32() == OFF
    assert read_tf32() == before
    first, second = tf32(False), tf32(False)
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert read_tf32() == OFF  # the second still computes
    second.__exit__(None, None, None)
    assert read_tf32() == before


def test_evaluating_is_fp32_whatever_torch_is_told(toy_model):
    model, seen = toy_model(), []
    model.head.escf.register_forward_hook(lambda *_: seen.append(read_tf32()))
    image = torch.zeros(3, 64, 64, dtype=torch.uint8)
    with tf32(True):
        model.predict([image], ("cat", "dog"))
        assert read_tf32() == ON
    assert seen == [OFF]


def test_text_is_encoded_without_tf32(toy_model):
    model, seen = toy_model(), []
    model.encoder.clip.transformer.register_forward_hook(lambda *_: seen.append(read_tf32()))
    with tf32(True):
        model.embed_vocabulary(("cat", "dog"))
    assert set(seen) == {OFF}


@pytest.mark.parametrize("allowed", [False, True])
def test_training_computes_as_configured_and_writes_it_down(run_cfg, tmp_path, monkeypatch, caplog, allowed):
    step, seen = PlainTrainer.step, []

    def watched(run, *arguments):
        seen.append((read_tf32(), torch.are_deterministic_algorithms_enabled()))
        return step(run, *arguments)

    monkeypatch.setattr(PlainTrainer, "step", watched)
    before = read_tf32()
    with caplog.at_level(logging.INFO):
        run(run_cfg("SOLVER.MAX_ITER", 1, "SOLVER.TF32", allowed, "SOLVER.DETERMINISTIC", allowed))
    assert seen == [((ON if allowed else OFF), allowed)]
    assert read_tf32() == before
    assert not torch.are_deterministic_algorithms_enabled()
    facts = json.loads((tmp_path / "out/environment.json").read_text())
    assert (facts["precision"], facts["tf32"], facts["deterministic"]) == ("fp32", allowed, allowed)
    assert facts["precision_reason"] == resolve_precision("auto", CPU).reason
    assert f"precision fp32 ({facts['precision_reason']}), TF32 {'allowed' if allowed else 'off'}" in caplog.text


@pytest.mark.parametrize(("precision", "reason"), [("fp32", "as configured"), ("bf16", "the model's own")])
def test_results_say_how_they_were_computed(run_cfg, caplog, precision, reason):
    cfg = run_cfg("TEST.PRECISION", "fp32", "SOLVER.TF32", True)
    model = err_seg.build_model(cfg)
    model.precision = precision
    with caplog.at_level(logging.INFO):
        (result,) = evaluate(cfg, model)
    settings = json.loads(Path(cfg.OUTPUT_DIR, "results.json").read_text())["benchmarks"]["toy_val"]["settings"]
    assert settings == json.loads(json.dumps(result.settings))
    assert (settings["precision"], settings["precision_reason"], settings["tf32"]) == (precision, reason, False)
    assert f"precision {precision} ({reason}), without TF32" in caplog.text


def test_deterministic_algorithms_for_the_time_of_a_block(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    for enabled in (False, True):
        with deterministic(enabled):
            assert torch.are_deterministic_algorithms_enabled() == enabled
            assert torch.backends.cudnn.benchmark != enabled
            assert os.environ.get("CUBLAS_WORKSPACE_CONFIG") == (":4096:8" if enabled else None)
        assert not torch.are_deterministic_algorithms_enabled()
        assert torch.backends.cudnn.benchmark
        assert "CUBLAS_WORKSPACE_CONFIG" not in os.environ
