"""What the network says of its parts: its blocks, what is compiled, and the scores of which a choice is made later."""

import re
from collections import Counter

import pytest
import torch
from torch import nn

from err_seg.modeling import CRM
from err_seg.modeling.crm import ranked
from tests.helpers.toy import VOCABULARY
from tests.modeling.test_switches import FASTVIT, VIT

TEXT = {"encoder.clip.transformer.resblocks": 2}
STAGES = {f"encoder.clip.visual.trunk.stages.{stage}.blocks": 1 for stage in range(4)}


def listed(model):
    """Count the network's blocks by the list that they are in."""
    names = {id(module): name for name, module in model.named_modules()}
    return Counter(re.sub(r"\.\d+$", "", names[id(block)]) for block in model.blocks())


def test_blocks_of_towers_and_fusion(toy_model):
    with_stage_4 = {**TEXT, **STAGES, "head.escf.layers": 2}
    model = toy_model()
    depths = {name: len(model.get_submodule(name)) for name in with_stage_4}
    assert listed(model) == depths
    assert listed(toy_model("MODEL.ESCF.ENABLED", False)) == {
        k: v for k, v in depths.items() if k != "head.escf.layers"
    }
    # a branch that does not train stage 4 runs it with constants in place of its weights
    stage_4 = "encoder.clip.visual.trunk.stages.3.blocks"
    assert listed(toy_model("MODEL.HSM.STAGE4_GRADIENT", "E16")) == {k: v for k, v in depths.items() if k != stage_4}


@pytest.mark.parametrize("escf", [True, False])
def test_what_is_compiled(toy_model, monkeypatch, escf):
    model, compiled = toy_model("MODEL.ESCF.ENABLED", escf), []
    own = nn.Module.compile

    def compile_(part, *args, **kwargs):
        compiled.append((part, (args, kwargs)))
        own(part, *args, **kwargs)

    monkeypatch.setattr(nn.Module, "compile", compile_)
    assert not model.is_compiled
    model.compile(backend="eager", dynamic=True)
    assert model.is_compiled
    head = model.head
    expected = [model.encoder, head.cost_embedding, *([head.escf] if escf else []), head.gud]
    assert compiled == [(part, ((), {"backend": "eager", "dynamic": True})) for part in expected]


@torch.no_grad()
@pytest.mark.parametrize("min_score", [0.0, 0.2])
@pytest.mark.parametrize("overrides", [(), FASTVIT, VIT], ids=["ConvNeXt", "FastViT", "ViT"])
def test_scores_first_and_the_choice_later(toy_model, overrides, min_score):
    model = toy_model("MODEL.CRM.MIN_SCORE", min_score, *overrides).eval()
    features = model.encoder(torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(0)))
    text = model.embed_vocabulary(VOCABULARY)
    scores = model.head.score_classes(features, text)
    kept, class_scores = model.head.crm.keep(scores, 5)
    chosen = model.head.choose(features, text, 5)
    assert torch.equal(kept, chosen[0])
    assert torch.equal(class_scores, chosen[1])
    assert torch.equal(scores.scores, class_scores)
    assert (scores.shares <= scores.scores / scores.pixels).all()
    assert scores.pixels == 16


@pytest.mark.parametrize("parts", [9, 4])
def test_ranking_lists_all_classes_by_score(parts):
    cost = torch.randn(2, 9, 4, 5, generator=torch.Generator().manual_seed(3))
    cost[:, 6:] = -9  # three classes without a score, in the order of their indices
    crm = CRM(num_ranks=2)
    ranking, (_, scores) = crm.ranking(cost.split(parts, dim=1)), crm([cost], 3)
    for order, score in zip(ranking.tolist(), scores.tolist(), strict=True):
        assert order == sorted(range(9), key=lambda t: (-score[t], t))


def test_a_long_vocabulary_settles_ties_by_index():
    scores = torch.zeros(1, 3000).index_fill(1, torch.tensor([2000, 7]), 1.0)
    assert ranked(scores)[0].tolist() == [7, 2000, *(i for i in range(3000) if i not in (7, 2000))]
