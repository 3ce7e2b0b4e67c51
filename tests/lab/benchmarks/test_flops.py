"""The count of parameters and multiply-adds against the published figures, and those that configurations state."""

import re

import pytest

import err_seg
from err_seg.lab.benchmarks.machine import network_cost
from tests.helpers.toy import REPOSITORY


def cost_of(*overrides, name="err_seg_convnext_b", num_kept=32):
    cfg = err_seg.get_cfg(REPOSITORY / "configs" / f"{name}.yaml", overrides)
    size = 512 if name.endswith("_512") else 640
    assert size == cfg.INPUT.SIZE
    return network_cost(cfg, num_classes=150, num_kept=num_kept)


def test_base_model_as_specified():
    cost = cost_of()
    assert (cost.parameters, cost.outside_clip, cost.trainable) == (188_853_370, 7_368_825, 126_432_633)
    total = sum(cost.macs.values())
    assert total + cost.repeated_guidance_macs == pytest.approx(287.2e9, rel=1e-3)
    assert cost.macs["encoder"] == pytest.approx(170.7e9, rel=1e-3)
    assert total < 275e9


@pytest.mark.parametrize(
    "switch",
    [("MODEL.ESCF.SSR_RATIO", 1), ("MODEL.ESCF.CSR_RATIO", 1), ("MODEL.ESCF.SSR_RATIO", 1, "MODEL.ESCF.CSR_RATIO", 1)],
)
def test_reductions_save_what_they_promise(switch):
    """Table X: both reductions together halve the cost of the rest of the network and more."""
    with_reductions = cost_of()
    without = cost_of(*switch)
    assert without.macs["escf"] > 1.2 * with_reductions.macs["escf"]
    assert without.macs["encoder"] == with_reductions.macs["encoder"]


@pytest.mark.parametrize(
    "name", ["err_seg_mobileclip2_s0", "err_seg_mobileclip2_s0_512", "err_seg_mobileclip2_s2", "err_seg_convnext_xxl"]
)
def test_a_configuration_states_what_it_costs(name):
    opening = (REPOSITORY / "configs" / f"{name}.yaml").read_text().split("_BASE_")[0]
    stated = [float(figure) for figure in re.findall(r"\d+\.\d", opening.split("costs")[1])]
    costs = [cost_of(name=name, num_kept=kept) for kept in (8, 32)]
    counted = [*(sum(cost.macs.values()) for cost in costs), costs[0].macs["encoder"]]
    assert stated == pytest.approx([macs / 1e9 for macs in counted], abs=0.1)
    assert "has not been measured" in opening.replace("\n# ", " ")


def test_real_time_is_within_its_goal():
    cost = cost_of(name="err_seg_mobileclip2_s0", num_kept=8)
    assert sum(cost.macs.values()) <= 45e9
