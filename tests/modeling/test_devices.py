"""Parts of the network on a CUDA device that is not there: what they make themselves is made where their inputs are."""

from types import SimpleNamespace

import pytest
import torch

from err_seg.engine import build_optimizer
from err_seg.modeling import CRM, layers, segmentation_loss
from err_seg.modeling.crm import count_class_pixels, kept_class_labels
from err_seg.modeling.layers import DeterministicResize, resized_part
from err_seg.modeling.loss import count_pixels, distillation_loss
from err_seg.utils.device import deterministic
from tests.helpers.fake_cuda import CUDA, build_shape, move_to_fake
from tests.modeling.test_switches import FASTVIT, VIT


def labels_on_cuda():
    return torch.empty(2, 16, 16, dtype=torch.int64, device=CUDA)


def test_choice_of_classes(fake_cuda):
    crm = CRM(num_kept=3, min_score=0.1, min_score_train=0.1).eval()
    scores = crm.score_classes([torch.empty(2, 5, 4, 4, device=CUDA)], [[torch.empty(2, 5, 2, 2, device=CUDA)]])
    needed = crm.needed(torch.empty(2, 3, dtype=torch.int64, device=CUDA), scores.shares)
    plain = CRM(num_kept=3).eval()
    kept, all_kept = plain.keep(scores)[0], plain.keep(scores, 9)[0]
    pixels = count_class_pixels(labels_on_cuda(), 5)
    places = kept_class_labels(labels_on_cuda(), kept, 5)
    for tensor in (*scores[::2], needed, kept, all_kept, pixels, places, plain.keep(scores, 3, pixels)[0]):
        assert tensor.device == CUDA


@pytest.mark.parametrize("negatives", [True, False])
def test_losses(fake_cuda, negatives):
    logits, targets = torch.empty(2, 3, 4, 4, device=CUDA), torch.empty(2, 3, 8, 8, device=CUDA)
    kept, labels = torch.empty(2, 3, dtype=torch.int64, device=CUDA), labels_on_cuda()
    options = {"ignored_are_negatives": negatives}
    assert segmentation_loss(logits, kept, labels, 5, **options).device == CUDA
    assert distillation_loss(logits, targets, kept, labels, 5, **options).device == CUDA
    assert count_pixels(labels, 5, 3).device == CUDA


@pytest.fixture(params=[(), FASTVIT, VIT], ids=["ConvNeXt", "FastViT", "ViT"])
def shape(request, toy_cfg):
    """The configuration and a network without numbers, made before tensors are fake."""
    cfg = toy_cfg(*request.param)
    return cfg, build_shape(cfg)


def test_networks(shape, fake_cuda):
    cfg, model = shape[0], move_to_fake(shape[1])
    tokens = torch.empty(7, 2, 9, dtype=torch.int64, device=CUDA)
    out = model.train()(torch.empty(2, 3, 64, 64, device=CUDA), tokens, labels=labels_on_cuda())
    assert {tensor.device for tensor in out} == {CUDA}
    assert out.logits.shape == (2, 4, 16, 16)
    assert build_optimizer(model, cfg).defaults["fused"] is True


def test_resizing(fake_cuda):
    step = SimpleNamespace()
    resized = DeterministicResize.forward(step, torch.empty(2, 3, 4, 4, device=CUDA), (8, 6), False, "bilinear")
    gradient, *others = DeterministicResize.backward(step, resized)
    assert gradient.device == CUDA
    assert gradient.shape == (2, 3, 4, 4)
    assert others == [None, None, None]


def test_a_part_of_a_resized_map_is_made_where_the_map_is():
    """On the device "meta", since the part's place is computed on the CPU."""
    part = resized_part(torch.empty(3, 5, 4, device="meta"), (50, 40), slice(10, 30), slice(0, 7))
    assert part.device.type == "meta"
    assert part.shape == (3, 20, 7)


@pytest.mark.parametrize("asked", [True, False])
def test_the_deterministic_way_is_taken_beyond_the_cpu_when_it_is_asked_for(fake_cuda, monkeypatch, asked):
    taken = []
    own = DeterministicResize.apply
    monkeypatch.setattr(layers.DeterministicResize, "apply", lambda *given: taken.append(given[1:]) or own(*given))
    maps = torch.empty(1, 2, 4, 4, device=CUDA)
    with deterministic(asked):
        layers.resize(maps, (8, 8), align_corners=True, mode="bicubic")
        layers.resize(torch.empty(1, 2, 4, 4), (8, 8))
        assert layers.resize(maps, (4, 4)) is maps
    assert taken == ([((8, 8), True, "bicubic")] if asked else [])
