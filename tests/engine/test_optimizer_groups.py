import json
import math
from functools import partial

import pytest
import torch
from torch import nn

import err_seg
from err_seg.engine import build_optimizer, build_schedule, parameter_groups
from err_seg.engine.optimizer import lr_factor, set_learning_rates
from err_seg.models.checkpoint_names import current_name
from tests.helpers.toy import GOLDEN

CONFIGS = {"b": "configs/err_seg_convnext_b.yaml", "l": "configs/err_seg_convnext_l.yaml"}


def model_on_no_device(size):
    """Build the full network without memory for its weights."""
    cfg = err_seg.get_cfg(CONFIGS[size], ["MODEL.CLIP.PRETRAINED", "", "MODEL.DEVICE", "meta"])
    with torch.device("meta"):
        return err_seg.build_model(cfg), cfg


@pytest.mark.parametrize("size", CONFIGS)
def test_groups_are_the_published_ones(size, monkeypatch, request):
    monkeypatch.chdir(request.config.rootpath)
    model, cfg = model_on_no_device(size)
    file = json.loads((GOLDEN / f"optimizer_{size}.json").read_text())
    published = file.get("params", file)
    expected = {current_name(name): value for name, value in published.items()}
    found = {name: None for name, _ in model.named_parameters()}
    for group in parameter_groups(model, cfg):
        found |= dict.fromkeys(group["names"], (group["lr"], group["weight_decay"]))
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        if value is None:
            assert found[name] is None, name
        else:
            lr, decay = (value["lr"], value["weight_decay"]) if isinstance(value, dict) else value
            assert found[name] == (pytest.approx(lr), pytest.approx(decay)), name


def test_every_kind_of_norm_has_its_own_weight_decay(toy_cfg):
    cfg = toy_cfg("SOLVER.WEIGHT_DECAY", 0.3, "SOLVER.WEIGHT_DECAY_NORM", 0.2)
    norms = (nn.LayerNorm(4), nn.GroupNorm(2, 4), nn.BatchNorm1d(4), nn.BatchNorm2d(4), nn.SyncBatchNorm(4))
    for norm in norms:
        (norms_only,) = parameter_groups(nn.Sequential(norm), cfg)
        assert (norms_only["weight_decay"], norms_only["names"]) == (0.2, ["0.weight", "0.bias"]), norm
    mixed = parameter_groups(nn.Sequential(nn.Conv2d(1, 1, 1), nn.GroupNorm(1, 1)), cfg)
    assert [(group["weight_decay"], group["names"]) for group in mixed] == [
        (0.3, ["0.weight", "0.bias"]),
        (0.2, ["1.weight", "1.bias"]),
    ]


def test_what_a_norm_contains_is_no_norm(toy_cfg):
    norm = nn.BatchNorm2d(4)
    norm.activation = nn.PReLU()
    groups = parameter_groups(norm, toy_cfg("SOLVER.WEIGHT_DECAY", 0.3, "SOLVER.WEIGHT_DECAY_NORM", 0.2))
    assert {name: group["weight_decay"] for group in groups for name in group["names"]} == {
        "weight": 0.2,
        "bias": 0.2,
        "activation.weight": 0.3,
    }


def test_hsm_s_branch_learns_as_slowly_as_clip(toy_cfg, toy_model):
    overrides = ("MODEL.HSM.TRAIN_CONV", True, "SOLVER.BASE_LR", 0.5, "SOLVER.CLIP_MULTIPLIER", 0.25)
    overrides += ("MODEL.CLIP.IMAGE_TUNING", "none", "MODEL.CLIP.TEXT_TUNING", "none")
    model = toy_model(*overrides)
    rates = {name: group["lr"] for group in parameter_groups(model, toy_cfg(*overrides)) for name in group["names"]}
    branch = {name: rate for name, rate in rates.items() if name.startswith("encoder.")}
    assert set(branch) == {f"encoder.hsm.{part}.{kind}" for part in ("norm", "conv") for kind in ("weight", "bias")}
    assert set(branch.values()) == {0.125}
    assert {rate for name, rate in rates.items() if name not in branch} == {0.5}


def test_number_of_trainable_parameters(monkeypatch, request):
    monkeypatch.chdir(request.config.rootpath)
    model, cfg = model_on_no_device("b")
    trained = sum(p.numel() for group in parameter_groups(model, cfg) for p in group["params"])
    assert trained == 126_432_633
    assert sum(p.numel() for p in model.parameters()) == 188_853_370


def test_schedule_is_linear_warm_up_then_cosine(toy_cfg, toy_model):
    cfg = toy_cfg("SOLVER.MAX_ITER", 100, "SOLVER.WARMUP_ITERS", 10, "SOLVER.BASE_LR", 1.0)
    optimizer = build_optimizer(toy_model(), cfg)
    schedule = build_schedule(optimizer, cfg)
    lrs = []
    for _ in range(101):
        lrs.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        schedule.step()
    high = [max(group) for group in lrs]
    assert high[0] == pytest.approx(0.001)
    meets = (1 + math.cos(math.pi * 0.1)) / 2
    assert high[5] == pytest.approx((0.001 + meets) / 2)
    assert high[10] == pytest.approx(meets)
    assert high[50] == pytest.approx(0.5)
    assert high[100] == pytest.approx(0.0, abs=1e-12)
    assert all(min(group) == pytest.approx(0.01 * max(group)) for group in lrs)


def test_poly_schedule_is_deeplabs(toy_cfg, toy_model):
    base = ("SOLVER.MAX_ITER", 100, "SOLVER.WARMUP_ITERS", 10, "SOLVER.LR_SCHEDULER_NAME", "WarmupPolyLR")
    factor = partial(lr_factor, cfg=toy_cfg(*base, "SOLVER.POLY_LR_POWER", 0.5))
    assert factor(0) == pytest.approx(0.001)
    assert factor(5) == pytest.approx((0.001 * 0.5 + 0.5) * 0.95**0.5)
    assert factor(10) == pytest.approx(0.9**0.5)
    assert factor(91) == pytest.approx(0.3)
    assert factor(100) == 0
    held = partial(lr_factor, cfg=toy_cfg(*base, "SOLVER.POLY_LR_CONSTANT_ENDING", 0.3))
    assert held(50) == pytest.approx(0.5**0.9)
    assert held(95) == held(99) == 0.3


def test_rates_of_an_iteration_are_the_schedules(toy_cfg, toy_model):
    cfg = toy_cfg("SOLVER.MAX_ITER", 20, "SOLVER.WARMUP_ITERS", 5)
    stepped, set_ = (build_optimizer(toy_model(), cfg) for _ in range(2))
    schedule = build_schedule(stepped, cfg)
    for iteration in range(20):
        assert set_learning_rates(set_, cfg, iteration) == max(group["lr"] for group in stepped.param_groups)
        assert [group["lr"] for group in set_.param_groups] == [group["lr"] for group in stepped.param_groups]
        stepped.step()
        schedule.step()


def test_schedule_may_start_anywhere(toy_cfg, toy_model):
    cfg = toy_cfg("SOLVER.MAX_ITER", 100, "SOLVER.WARMUP_ITERS", 10)
    optimizer = build_optimizer(toy_model(), cfg)
    build_schedule(optimizer, cfg, start=50)
    assert max(group["lr"] for group in optimizer.param_groups) == pytest.approx(1e-4)
