"""How the parts begin: sizes that are the configuration's defaults, and weights as documented."""

import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn

import err_seg
from err_seg.modeling import CRM, CostEmbedding
from err_seg.modeling.encoder import FeatureMap, FeatureMaps
from err_seg.modeling.escf import CFM, SFM, ImageGuidance, TextGuidance
from err_seg.modeling.gud import UpsamplingStage
from err_seg.modeling.layers import MLP, GuidedAttention, init_fusion_weights
from err_seg.models.build import build_head

MAPS = FeatureMaps(
    (FeatureMap("e16", 40, 16), FeatureMap("e32", 40, 32)),
    deep=(FeatureMap("f4", 24, 32), FeatureMap("f3", 16, 16)),
    shallow=(FeatureMap("f3", 16, 16), FeatureMap("f2", 12, 8), FeatureMap("f1", 8, 4)),
)


@pytest.fixture(scope="module")
def published():
    """The head of the default configuration, without memory for its weights."""
    with torch.device("meta"):
        return build_head(err_seg.get_cfg(), MAPS)


def shapes(module):
    return {name: tuple(parameter.shape) for name, parameter in module.named_parameters()}


def test_sizes_by_default_are_those_of_the_default_configuration(published):
    layer = published.escf.layers[0]
    with torch.device("meta"):
        pairs = [
            (CostEmbedding(), published.cost_embedding),
            (SFM(ssr_ratio=layer.sfm.attention.ssr.conv_k.stride[0]), layer.sfm),
            (CFM(), layer.cfm),
            (ImageGuidance(in_dims=(24, 16)), published.escf.image_guidance),
            (TextGuidance(in_dim=40), published.escf.text_guidance),
            (
                UpsamplingStage(in_dim=128, out_dim=64, feature_dim=16, guidance_dim=32, scale=1),
                published.gud.stages[0],
            ),
        ]
        plain = [SFM(), GuidedAttention(8, 4, 2)]
    for by_default, configured in pairs:
        assert shapes(by_default) == shapes(configured)
    assert SFM().attention.num_heads == CFM().attention.num_heads == layer.sfm.attention.num_heads
    assert CFM().csr_ratio == layer.cfm.csr_ratio
    assert CFM().drop_path.drop_prob == SFM().drop_path.drop_prob == 0
    assert plain[0].attention.ssr is None
    assert plain[1].ssr is None
    assert MLP(4, 8).fc2 is not None
    assert pairs[-1][0].stop_gradient is published.gud.stages[0].stop_gradient is True


def test_choice_of_classes_by_default(published):
    crm, configured = CRM(), published.crm
    for name in ("num_ranks", "rank_decay", "min_score", "min_score_train", "min_kept"):
        assert getattr(crm, name) == getattr(configured, name), name
    assert (crm.num_kept, crm.num_kept_train) == (None, None)
    assert not crm.is_adaptive
    assert not crm.eval().is_adaptive


@pytest.mark.parametrize(("ratio", "hidden"), [(3.0, 24), (2.5, 20), (0.3, 2)])
def test_width_of_the_mlp(ratio, hidden):
    module = SFM(dim=8, guidance_dim=4, num_heads=2, mlp_ratio=ratio)
    assert (module.mlp.fc1.out_features, module.mlp.fc3.in_features) == (hidden, hidden)


def initialised(layer):
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.fill_(7.0)
    layer.apply(init_fusion_weights)
    return layer


@pytest.mark.parametrize(
    ("layer", "std"),
    [
        (nn.Linear(300, 200), 0.02),
        (nn.Conv2d(64, 96, 3), math.sqrt(2 / (9 * 96))),
        (nn.Conv2d(64, 128, (1, 5), groups=16), math.sqrt(2 / (5 * 8))),
        (nn.Conv2d(256, 256, 7, groups=256, bias=False), math.sqrt(2 / 49)),
    ],
    ids=["linear", "convolution", "in groups", "of each channel"],
)
def test_spread_of_the_first_weights(layer, std):
    weight = initialised(layer).weight
    assert weight.std().item() == pytest.approx(std, rel=0.02)
    assert abs(weight.mean().item()) < std / 20
    assert layer.bias is None or (layer.bias == 0).all()


def test_norms_begin_as_the_identity_and_others_are_left_alone():
    norm, other = initialised(nn.LayerNorm(5)), initialised(nn.GroupNorm(1, 5))
    assert (norm.weight == 1).all()
    assert (norm.bias == 0).all()
    assert (other.weight == 7).all()
    assert (other.bias == 7).all()
    assert initialised(nn.LayerNorm(5, bias=False)).bias is None
    assert init_fusion_weights(SimpleNamespace()) is None


@pytest.mark.parametrize("kind", [SFM, CFM])
def test_fusion_modules_are_initialised(kind):
    torch.manual_seed(0)
    module = kind(dim=64, guidance_dim=32)
    assert module.mlp.fc1.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert all((parameter == 0).all() for name, parameter in module.named_parameters() if name.endswith("bias"))
