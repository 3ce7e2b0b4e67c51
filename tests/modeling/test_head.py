"""The head: classes of the labels come first in training, and rows may be filled up by whoever chose the classes."""

import pytest
import torch

from err_seg.modeling.crm import NOT_KEPT
from err_seg.modeling.head import ABSENT
from tests.helpers.toy import VOCABULARY


@pytest.fixture
def case(toy_model):
    model = toy_model()
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    return model, images, model.embed_vocabulary(VOCABULARY)


@torch.no_grad()
def test_classes_of_the_labels_are_kept_in_training(case):
    model, images, text = case
    without = model.train()(images, text)
    absent = [[t for t in range(len(VOCABULARY)) if t not in row] for row in without.kept.tolist()]
    labels = torch.stack([torch.tensor(classes[:2]).repeat(64, 32) for classes in absent])
    out = model(images, text, labels=labels)
    for row, classes in zip(out.kept.tolist(), absent, strict=True):
        assert set(classes[:2]) <= set(row)
    few = model(images, text, 2, labels)
    assert few.kept.tolist() == [sorted(classes[:2]) for classes in absent]
    assert torch.equal(out.class_scores, without.class_scores)


@torch.no_grad()
def test_rows_filled_up_by_another_choice(case):
    model, images, text = case
    features = model.eval().encoder(images)
    kept = torch.tensor([[0, 3, 5], [2, 6, NOT_KEPT]])
    logits = model.head.segment(features, text, kept, has_padding=True)
    assert (logits[1, 2] == ABSENT).all()
    for row, number in ((0, 3), (1, 2)):
        some = type(features)(*(tuple(maps[row : row + 1] for maps in use) for use in features))
        alone = model.head.segment(some, text, kept[row : row + 1, :number])
        torch.testing.assert_close(logits[row, :number], alone[0], rtol=1e-5, atol=1e-5)
    full = kept.clamp(min=0)
    assert torch.equal(
        model.head.segment(features, text, full, has_padding=False), model.head.segment(features, text, full)
    )
