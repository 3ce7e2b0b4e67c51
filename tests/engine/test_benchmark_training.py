import pytest
import torch
from conftest import TOY

from err_seg.benchmarks import training
from err_seg.config import get_cfg
from err_seg.data import load_vocabulary


@pytest.mark.parametrize("what", ["training step", "loss alone"])
def test_both_losses_are_the_same_number(what):
    cfg = get_cfg(None, [*TOY, "INPUT.CROP_SIZE", 64, "MODEL.CRM.NUM_KEPT_TRAIN", 12])
    words = load_vocabulary("pascal_voc_20")
    kept, dense = (training.MEASUREMENTS[what](kind, cfg, words, 2, 1) for kind in training.LOSSES)
    assert kept["loss"] == pytest.approx(dense["loss"], rel=1e-5)
    assert kept["loss"] > 0
    assert kept["seconds"] > 0


def test_gradients_are_the_same():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 4, 4, generator=generator, requires_grad=True)
    kept, labels = torch.tensor([[0, 2, 5], [1, 2, 3]]), torch.tensor([2, 2]).view(2, 1, 1).expand(2, 16, 16)
    gradients = [torch.autograd.grad(loss(logits, kept, labels, 7), logits)[0] for loss in training.LOSSES.values()]
    torch.testing.assert_close(*gradients)


def test_label_maps_hold_as_many_classes_as_promised():
    labels = training.blocks(2, 64, 171)
    assert labels.shape == (2, 64, 64)
    assert all(1 < len(image.unique()) <= training.CLASSES_A_IMAGE for image in labels)
