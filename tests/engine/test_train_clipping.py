import pytest
import torch

from err_seg.engine import build_optimizer
from tests.helpers.training import assert_resumes_exactly

SETTINGS = "SOLVER.CLIP_GRADIENTS."


def clipping(kind, value=0.1, norm=2.0):
    settings = {"ENABLED": True, "CLIP_TYPE": kind, "CLIP_VALUE": value, "NORM_TYPE": norm}
    return [entry for key, setting in settings.items() for entry in (SETTINGS + key, setting)]


def clipped(toy_model, toy_cfg, *overrides):
    """Return the gradients before and after a step, by parameter."""
    model, generator = toy_model(), torch.Generator().manual_seed(0)
    optimizer = build_optimizer(model, toy_cfg(*overrides))
    trained = [p for p in model.parameters() if p.requires_grad]
    for parameter in trained:
        parameter.grad = torch.randn(parameter.shape, generator=generator)
    before = [p.grad.clone() for p in trained]
    optimizer.step()
    return before, [p.grad for p in trained]


def test_off_by_default(toy_model, toy_cfg):
    before, after = clipped(toy_model, toy_cfg)
    assert all(map(torch.equal, before, after))


def test_by_value(toy_model, toy_cfg):
    before, after = clipped(toy_model, toy_cfg, *clipping("value"))
    for old, new in zip(before, after, strict=True):
        assert torch.equal(new, old.clamp(-0.1, 0.1))


@pytest.mark.parametrize("norm", [1.0, 2.0, float("inf")])
def test_by_the_norm_of_each_parameter(toy_model, toy_cfg, norm):
    before, after = clipped(toy_model, toy_cfg, *clipping("norm", 0.5, norm))
    for old, new in zip(before, after, strict=True):
        length = old.flatten().norm(norm)
        torch.testing.assert_close(new, old * min(1.0, 0.5 / length), rtol=1e-4, atol=1e-7)


def test_by_the_norm_of_all_together(toy_model, toy_cfg):
    before, after = clipped(toy_model, toy_cfg, *clipping("full_model", 0.5))
    length = torch.cat([old.flatten() for old in before]).norm()
    for old, new in zip(before, after, strict=True):
        torch.testing.assert_close(new, old * (0.5 / length), rtol=1e-4, atol=1e-7)


def test_once_an_iteration_after_all_of_its_parts(run_cfg, monkeypatch):
    from err_seg.engine import optimizer
    from tests.helpers.training import run

    seen = []
    monkeypatch.setattr(optimizer, "clip_before_step", lambda stepped, clip: seen.append(clip))
    run(run_cfg(*clipping("norm"), "SOLVER.MAX_ITER", 2, "SOLVER.ACCUMULATION_STEPS", 4))
    assert len(seen) == 2


@pytest.mark.parametrize("kind", ["value", "norm", "full_model"])
def test_resumes_exactly(run_cfg, tmp_path, monkeypatch, kind):
    assert_resumes_exactly(run_cfg, tmp_path, monkeypatch, *clipping(kind, 1e-3), stops=(3,))
