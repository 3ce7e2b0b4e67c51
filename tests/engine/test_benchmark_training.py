# ruff: noqa: F401 (fixtures come by import)
import argparse
import importlib.util

import pytest
import torch
from conftest import REPOSITORY, TOY
from toy_training import one_thread


@pytest.fixture
def tool():
    spec = importlib.util.spec_from_file_location("benchmark_training", REPOSITORY / "tools/benchmark_training.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def options():
    values = {"config_file": None, "size": 64, "batch_size": 2, "steps": 1, "vocabulary": "pascal_voc_20"}
    return argparse.Namespace(**values, opts=[*TOY, "MODEL.CRM.NUM_KEPT_TRAIN", 12])


@pytest.mark.parametrize("what", ["training step", "loss alone"])
def test_both_losses_are_the_same_number(tool, options, what):
    kept, dense = (tool.MEASUREMENTS[what](kind, options) for kind in tool.LOSSES)
    assert kept["loss"] == pytest.approx(dense["loss"], rel=1e-5)
    assert kept["loss"] > 0
    assert kept["seconds"] > 0


def test_gradients_are_the_same(tool):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 4, 4, generator=generator, requires_grad=True)
    kept, labels = torch.tensor([[0, 2, 5], [1, 2, 3]]), torch.tensor([2, 2]).view(2, 1, 1).expand(2, 16, 16)
    gradients = [torch.autograd.grad(loss(logits, kept, labels, 7), logits)[0] for loss in tool.LOSSES.values()]
    torch.testing.assert_close(*gradients)


def test_label_maps_hold_as_many_classes_as_promised(tool):
    labels = tool.blocks(2, 64, 171)
    assert labels.shape == (2, 64, 64)
    assert all(1 < len(picture.unique()) <= tool.CLASSES_A_PICTURE for picture in labels)
