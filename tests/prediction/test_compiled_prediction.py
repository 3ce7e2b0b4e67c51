"""Compiled prediction: the same results, and few compilations however sizes and classes change."""

import copy

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend

import err_seg
from err_seg.mini.scenes import MiniScenes
from err_seg.mini.vocabulary import VOCABULARY as WORDS
from err_seg.models.build import build_compiled
from err_seg.prediction.attention import record_attention
from err_seg.prediction.model import ERRSeg
from tests.helpers.documents import blocks
from tests.helpers.toy import REPOSITORY, TOY

CLASSES = tuple(f"thing {i}" for i in range(20))


@pytest.fixture
def images():
    sizes = [(30, 40), (50, 20), (64, 64), (31, 47), (20, 90)]
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(0, 256, (3, *size), generator=generator, dtype=torch.uint8) for size in sizes]


@pytest.fixture
def graphs():
    """Count what is compiled; traced as for any backend, without the minutes that a compiler takes."""
    torch.compiler.reset()
    with torch._dynamo.config.patch(fail_on_recompile_limit_hit=True):
        yield CompileCounterWithBackend("eager")
    torch.compiler.reset()


def test_compiled_predictions_are_the_same_and_no_change_compiles_for_ever(toy_model, images, graphs):
    model = toy_model("MODEL.CRM.MIN_SCORE", 1e-3)
    compiled = copy.deepcopy(model)
    compiled.compile(backend=graphs)

    def compare(count, **options):
        pairs = zip(*(m.predict(images[:count], CLASSES, **options) for m in (model, compiled)), strict=True)
        for plain, other in pairs:
            assert torch.equal(plain.kept, other.kept)
            torch.testing.assert_close(other.probabilities, plain.probabilities)

    with pytest.raises(ValueError, match=r"cannot record attention; unset TEST\.COMPILE"):
        record_attention(compiled, images[0].permute(1, 2, 0).numpy(), CLASSES)
    compare(1, num_kept=4)
    assert graphs.frame_count == 4, "encoder, cost embedding, ESCF and GUD, without a break"
    compare(1, num_kept=4)
    assert graphs.frame_count == 4
    for count, kept, batch in [(2, 4, 2), (2, 5, 1), (5, 1, 2), (3, 3, 3), (4, 6, 3), (5, 9, 5)]:
        compare(count, num_kept=kept, batch_size=batch)
    settled = graphs.frame_count
    assert settled <= 4 * 6
    for kept in range(4, 15, 2):
        compare(5, num_kept=kept, batch_size=kept // 3)
    assert graphs.frame_count == settled


@pytest.mark.slow
def test_int8_as_the_documentation_says():
    pytest.importorskip("torchao", reason="torchao is not installed")
    (block,) = [
        block for block in blocks((REPOSITORY / "docs/performance.md").read_text(), "python") if "torchao" in block
    ]
    told: dict = {"err_seg": err_seg}
    exec(block, told)
    scenes = MiniScenes("test", length=8)
    exact, low = (
        model.predict([scenes[i].image for i in range(8)], WORDS) for model in (err_seg.load("mini"), told["model"])
    )
    same = [(a.labels == b.labels).float().mean().item() for a, b in zip(exact, low, strict=True)]
    assert 0.97 < sum(same) / 8 < 1


@pytest.mark.parametrize("value", ["eager", ""])
def test_the_configuration_compiles_what_only_predicts(value, monkeypatch, toy_model, images):
    asked = []
    monkeypatch.setattr(ERRSeg, "compile", lambda self, **options: asked.append(options))
    cfg = err_seg.get_cfg(None, [*TOY, "TEST.COMPILE", value])
    build_compiled(cfg)
    assert asked == [{"backend": "eager"}] * bool(value)
    err_seg.build_model(cfg)
    assert len(asked) == bool(value)


def test_a_mode_is_not_a_backend(monkeypatch):
    asked = []
    monkeypatch.setattr(ERRSeg, "compile", lambda self, **options: asked.append(options))
    err_seg.load("mini", device="cpu", overrides=["TEST.COMPILE", "reduce-overhead"])
    assert asked == [{"mode": "reduce-overhead"}]
