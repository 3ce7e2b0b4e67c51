"""What only inference on a CPU does gives the results of the plain way."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from err_seg.modeling.cpu import Linear, PerClass, is_cpu_inference, linear
from err_seg.prediction.attention import record_attention
from tests.helpers.toy import VOCABULARY


def noise(*shape: int, **options: object) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(len(shape)), **options)


@pytest.mark.parametrize("shape", [(5,), (7, 5), (2, 3, 7, 5), (0, 5)])
@pytest.mark.parametrize("has_bias", [True, False])
def test_a_linear_layer_is_the_same_function(shape, has_bias):
    x, weight, bias = noise(*shape), noise(4, 5), noise(4) if has_bias else None
    with torch.no_grad():
        found = linear(x, weight, bias)
    torch.testing.assert_close(found, F.linear(x, weight, bias))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_precisions_and_training_use_the_plain_product(dtype, monkeypatch):
    monkeypatch.setattr(F, "conv2d", None)
    x, layer = noise(7, 5), Linear(5, 4)
    assert torch.equal(layer(x), F.linear(x, layer.weight, layer.bias)), "with gradients"
    layer.to(dtype)
    with torch.no_grad():
        assert layer(x.to(dtype)).dtype == dtype
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert Linear(5, 4)(x).dtype == torch.bfloat16


class Special(torch.Tensor):
    """As the sharded and quantised parameters of other libraries, which know linear layers but no convolutions."""

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        assert func is not F.conv2d
        return super().__torch_function__(func, types, args, kwargs or {})


@torch.no_grad()
def test_special_parameters_are_left_to_the_plain_product():
    x, weight = noise(7, 5), noise(4, 5)
    assert torch.equal(linear(x, weight.as_subclass(Special)).as_subclass(torch.Tensor), F.linear(x, weight))


def test_the_linear_layers_of_clip_are_of_this_kind_and_keep_their_names(toy_model):
    model = toy_model()
    kinds = {type(module) for module in model.encoder.modules() if isinstance(module, nn.Linear)}
    assert Linear in kinds
    assert nn.Linear not in kinds
    assert "encoder.clip.visual.trunk.stages.0.blocks.0.mlp.fc1.weight" in model.state_dict()


def test_a_function_sees_few_indices_at_a_time():
    module, seen = PerClass(), []
    module.places_at_a_time = 10

    def double(x: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        seen.append((x.shape[1], other.shape[1]))
        return x + other[..., :1]

    x, other = noise(2, 7, 3), noise(2, 7, 5)
    with torch.no_grad():
        found = module.few_at_a_time(double, x, other, places=4)
        module.few_at_a_time(double, x, other, places=400)
    assert torch.equal(found, x + other[..., :1])
    assert seen == [(2, 2), (2, 2), (2, 2), (1, 1)] + [(1, 1)] * 7
    seen.clear()
    module.few_at_a_time(double, x, other, places=4)
    assert seen == [(7, 7)], "with gradients"
    assert not is_cpu_inference(x)


@pytest.mark.parametrize(
    "overrides", [(), ("MODEL.CRM.MIN_SCORE", 0.05), ("MODEL.HSM.ENABLED", False), ("MODEL.ESCF.ENABLED", False)]
)
def test_classes_may_pass_the_head_one_at_a_time(overrides, toy_model, images, monkeypatch):
    model = toy_model(*overrides).eval()
    inputs = model.preprocess([torch.from_numpy(image).permute(2, 0, 1) for image in images])
    with torch.no_grad():
        text = model.embed_vocabulary(VOCABULARY)
        whole = model(inputs, text)
        monkeypatch.setattr(PerClass, "places_at_a_time", 1)
        single = model(inputs, text)
    with_gradients = model(inputs, text)
    for found in (single, with_gradients):
        assert torch.equal(found.kept, whole.kept)
        torch.testing.assert_close(found.logits, whole.logits, rtol=1e-4, atol=1e-5)


def test_attention_is_recorded_whole(toy_model, images, monkeypatch):
    model = toy_model().eval()
    whole = record_attention(model, images[0], VOCABULARY)
    monkeypatch.setattr(PerClass, "places_at_a_time", 20)
    parts = record_attention(model, images[0], VOCABULARY)
    for found, expected in zip(parts.spatial + parts.category, whole.spatial + whole.category, strict=True):
        assert found.grid == expected.grid
        torch.testing.assert_close(found.queries, expected.queries)
        torch.testing.assert_close(found.keys, expected.keys)
