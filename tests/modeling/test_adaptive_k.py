"""Images that keep as many classes as they need."""

import pytest
import torch

import err_seg
from err_seg.config import ConfigError
from err_seg.evaluation.tta import View, segment_views
from err_seg.modeling import CRM, segmentation_loss
from err_seg.modeling.crm import NOT_KEPT, kept_class_labels
from err_seg.modeling.head import ABSENT
from tests.helpers.toy import VOCABULARY

WORDS = (*VOCABULARY, "wall", "floor", "lamp", "chair", "door")
MIN_SCORE = 0.1


def needed_by_hand(scores, pixels, min_score, num_kept, min_kept):
    """Return one image's classes, from its scores."""
    order = sorted(range(len(scores)), key=lambda t: (-float(scores[t]), t))[:num_kept]
    return sorted(t for place, t in enumerate(order) if place < min_kept or scores[t] >= min_score * pixels)


@pytest.mark.parametrize(("min_score", "num_kept", "min_kept"), [(0.05, 8, 1), (0.2, 8, 3), (0.2, 3, 1), (1.0, 20, 2)])
def test_choice(min_score, num_kept, min_kept):
    cost = torch.randn(5, 12, 4, 6, generator=torch.Generator().manual_seed(1)) + torch.arange(12).view(12, 1, 1) / 4
    crm = CRM(num_kept=num_kept, min_score=min_score, min_kept=min_kept).eval()
    kept, scores = crm([cost])
    for row, row_scores in zip(kept.tolist(), scores, strict=True):
        expected = needed_by_hand(row_scores, 24, min_score, num_kept, min_kept)
        assert row == expected + [NOT_KEPT] * (kept.shape[1] - len(expected))
    assert kept.shape[1] == max((row != NOT_KEPT).sum() for row in kept)


def test_a_score_that_equals_the_minimum_suffices():
    cost = torch.zeros(1, 3, 4, 4)
    cost[:, 0, 1:], cost[:, 1, 0] = 1, 1  # the first at 12 of 16 pixels, the second at 4
    for min_score, expected in ((0.25, [0, 1]), (0.25 + 1e-6, [0]), (0.75, [0])):
        assert CRM(num_ranks=1, num_kept=2, min_score=min_score).eval()([cost])[0].tolist() == [expected]
    for min_kept in (1, 2):
        kept, _ = CRM(num_ranks=1, num_kept=2, min_score=0.75 + 1e-6, min_kept=min_kept).eval()([cost])
        assert kept.tolist() == [[0, 1][:min_kept]]


def test_a_class_needs_its_score_in_every_cost_map():
    first = torch.zeros(1, 4, 4, 4)
    first[:, 0, :2], first[:, 1, 2:] = 1, 1
    first[:, 2] = 0.5  # second everywhere
    second = torch.zeros(1, 4, 2, 2)
    second[:, 0], second[:, 2] = 1, 0.5  # which overlooks the class 1
    crm = CRM(num_kept=4, min_score=0.05).eval()
    assert crm([first])[0].tolist() == [[0, 1, 2]]
    assert crm([first], others=[[second]])[0].tolist() == [[0, 2]]
    labelled = CRM(num_kept_train=4, min_score_train=0.05).train()
    assert labelled([first], None, torch.tensor([[0, 3, 0, 0]]), [[second]])[0].tolist() == [[0, 1, 2]]


def test_classes_in_the_labels_are_kept_without_a_score():
    crm = CRM(num_kept_train=3, min_score_train=0.5).train()
    cost = torch.zeros(2, 6, 4, 4)
    cost[:, 5] = 1
    kept, _ = crm([cost], None, torch.tensor([[0, 7, 0, 0, 0, 0], [1, 1, 1, 5, 0, 0]]))
    assert kept.tolist() == [[1, 5, NOT_KEPT], [0, 1, 3]]
    assert (crm.eval()([cost], 2)[0] != NOT_KEPT).all()  # the minimum in evaluation is another


def test_places_filled_up_stand_for_no_label():
    labels = torch.tensor([[[0, 4], [1, 255]]])
    assert kept_class_labels(labels, torch.tensor([[1, 4, NOT_KEPT]]), 5).tolist() == [[[-1, 1], [0, -1]]]


@pytest.fixture
def adaptive(toy_model):
    """A network that keeps unequal numbers of classes of the images."""
    return toy_model("MODEL.CRM.NUM_KEPT", 6, "MODEL.CRM.MIN_SCORE", MIN_SCORE)


def test_a_result_does_not_depend_on_its_batch(adaptive, images):
    alone = [adaptive.predict(image, WORDS) for image in images]
    assert len({len(result.kept) for result in alone}) > 1
    for batch_size in (2, len(images)):
        together = adaptive.predict(images, WORDS, batch_size=batch_size)
        for one, other in zip(alone, together, strict=True):
            assert torch.equal(one.kept, other.kept)
            assert len(other.probabilities) == len(other.kept)
            torch.testing.assert_close(one.probabilities, other.probabilities, rtol=0, atol=1e-6)
            assert torch.equal(one.class_scores, other.class_scores)


def test_classes_that_are_kept_look_as_without_a_minimum(adaptive, toy_model, images):
    fixed = toy_model()
    for image in images:
        result = adaptive.predict(image, WORDS)
        with torch.no_grad(), fixed.evaluating():
            features = fixed.encoder(fixed.preprocess([torch.from_numpy(image).permute(2, 0, 1)]))
            logits = fixed.head.segment(features, fixed.embed_vocabulary(WORDS), result.kept.unsqueeze(0))
        torch.testing.assert_close(result.probabilities, logits[0].sigmoid(), rtol=0, atol=0)


def test_all_views_keep_the_classes_of_the_first(adaptive, images):
    inputs = [torch.from_numpy(image).permute(2, 0, 1) for image in images]
    sizes = [one.shape[1:] for one in inputs]
    with torch.no_grad(), adaptive.evaluating():
        text = adaptive.embed_vocabulary(WORDS)
        views = [View(64, False), View(64, True)]
        results = segment_views(adaptive, inputs, text, None, WORDS, sizes, views)
    for image, result in zip(images, results, strict=True):
        assert torch.equal(result.kept, adaptive.predict(image, WORDS).kept)
        assert result.labels.shape == image.shape[:2]


def test_training_loss_and_gradients_are_those_of_the_images_alone(toy_model):
    options = ("MODEL.CRM.NUM_KEPT_TRAIN", 7, "MODEL.CRM.MIN_SCORE_TRAIN", MIN_SCORE, "MODEL.ESCF.DROP_PATH", 0.0)
    model = toy_model(*options).train()
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(4, 3, 64, 64, generator=generator)
    labels = torch.randint(0, 3, (4, 64, 64), generator=generator)
    text = model.embed_vocabulary(WORDS)

    def step(rows):
        model.zero_grad()
        out = model(images[rows], text, labels=labels[rows])
        loss = segmentation_loss(out.logits, out.kept, labels[rows], len(WORDS))
        loss.backward()
        gradients = [p.grad.clone() for p in model.parameters() if p.grad is not None]
        return out, loss.detach(), gradients

    out, loss, gradients = step([0, 1, 2, 3])
    numbers = (out.kept != NOT_KEPT).sum(dim=1)
    assert len(numbers.unique()) > 1
    assert (out.logits[out.kept == NOT_KEPT] == ABSENT).all()
    alone = [step([row]) for row in range(4)]
    torch.testing.assert_close(loss, sum(one for _, one, _ in alone) / 4, rtol=1e-5, atol=1e-7)
    for index, gradient in enumerate(gradients):
        torch.testing.assert_close(gradient, sum(one[index] for *_, one in alone) / 4, rtol=1e-3, atol=1e-6)


def test_without_crm_there_is_no_minimum(toy_model, images):
    model = toy_model("MODEL.CRM.ENABLED", False, "MODEL.CRM.MIN_SCORE", 0.9)
    assert len(model.predict(images[0], WORDS).kept) == len(WORDS)


def test_minimum_is_a_share():
    with pytest.raises(ConfigError, match=r"MODEL\.CRM\.MIN_SCORE"):
        err_seg.get_cfg(None, ["MODEL.CRM.MIN_SCORE", 2.0])
