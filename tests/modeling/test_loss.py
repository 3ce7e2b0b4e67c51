"""The loss on the kept classes against the dense loss over the whole vocabulary."""

import pytest
import torch
from torch.nn import functional as F

from err_seg.modeling import CRM, segmentation_loss
from err_seg.modeling.crm import count_class_pixels, kept_class_labels
from err_seg.modeling.loss import count_pixels, distillation_loss
from err_seg.utils.images import BACKGROUND
from tests.helpers.toy import VOCABULARY

NUM_CLASSES = 10


def dense_loss(logits, kept, labels, ignored_are_negatives=True):
    """The published form: T channels, −100 where a class was not kept, one-hot targets."""
    size = (logits.shape[0], NUM_CLASSES, *logits.shape[-2:])
    dense = torch.full(size, -100.0).scatter(1, kept[:, :, None, None].expand_as(logits), logits)
    dense = F.interpolate(dense, size=labels.shape[-2:], mode="bilinear", align_corners=False)
    is_kept = torch.zeros(len(labels), NUM_CLASSES).scatter(1, kept, 1.0)
    target = torch.stack([labels == t for t in range(NUM_CLASSES)], dim=1) * is_kept[:, :, None, None]
    loss = F.binary_cross_entropy_with_logits(dense, target, reduction="none")
    if ignored_are_negatives:
        return loss.mean()
    valid = target.sum(dim=1, keepdim=True) > 0
    return (loss * valid).sum() / (NUM_CLASSES * valid.sum())


@pytest.fixture
def case():
    generator = torch.Generator().manual_seed(0)
    logits = 5 * torch.randn(2, 4, 6, 6, generator=generator)
    kept = torch.tensor([[0, 3, 5, 9], [1, 2, 3, 4]])
    labels = torch.randint(0, NUM_CLASSES, (2, 12, 12), generator=generator)
    labels[:, :3] = 255
    return logits, kept, labels


@pytest.mark.parametrize("ignored_are_negatives", [True, False])
def test_equals_the_dense_loss_with_gradients(case, ignored_are_negatives):
    logits, kept, labels = case
    ours, dense = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    loss = segmentation_loss(ours, kept, labels, NUM_CLASSES, ignored_are_negatives=ignored_are_negatives)
    expected = dense_loss(dense, kept, labels, ignored_are_negatives)
    torch.testing.assert_close(loss, expected)
    loss.backward()
    expected.backward()
    torch.testing.assert_close(ours.grad, dense.grad)


def test_images_without_a_labelled_pixel(case):
    logits, kept, labels = case
    nothing = torch.full_like(labels, 255)
    assert segmentation_loss(logits, kept, nothing, NUM_CLASSES, ignored_are_negatives=False) == 0
    everywhere_negative = F.softplus(F.interpolate(logits, (12, 12), mode="bilinear")).sum() / (NUM_CLASSES * 2 * 144)
    torch.testing.assert_close(segmentation_loss(logits, kept, nothing, NUM_CLASSES), everywhere_negative)


def test_a_single_labelled_pixel_and_a_given_number():
    logits = torch.tensor([1.5, -0.5]).view(1, 2, 1, 1).expand(1, 2, 2, 2)
    kept, labels = torch.tensor([[0, 2]]), torch.tensor([[[2, 255], [255, 255]]])
    expected = F.binary_cross_entropy_with_logits(logits[0, :, 0, 0], torch.tensor([0.0, 1.0]), reduction="sum") / 4
    loss = segmentation_loss(logits, kept, labels, 4, ignored_are_negatives=False)
    torch.testing.assert_close(loss, expected)
    halved = segmentation_loss(logits, kept, labels, 4, ignored_are_negatives=False, num_pixels=torch.tensor(2))
    torch.testing.assert_close(halved, expected / 2)


def test_extreme_logits_stay_finite(case):
    logits, kept, labels = case
    loss = segmentation_loss((logits * 1e3).half(), kept, labels, NUM_CLASSES)
    assert torch.isfinite(loss)
    assert loss.dtype == torch.float32


@pytest.mark.parametrize(
    "labels",
    [
        torch.full((2, 64, 64), 255),  # no labelled pixel
        torch.arange(7).repeat(2, 64, 10)[:, :, :64],  # more classes than K = 4
        torch.stack([torch.zeros(64, 64, dtype=torch.int64), torch.full((64, 64), 65535)]),
    ],
    ids=["nothing labelled", "more classes than K", "one image labelled"],
)
def test_training_step_on_unusual_ground_truth(toy_model, labels):
    model = toy_model().train()
    out = model(torch.randn(2, 3, 64, 64), model.vocabulary_encoder.tokenize(VOCABULARY), labels=labels)
    loss = segmentation_loss(out.logits, out.kept, labels, len(VOCABULARY))
    loss.backward()
    assert out.kept.shape == (2, 4)
    assert 0 < loss < 10
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            assert torch.isfinite(parameter.grad).all(), name


def test_vocabulary_smaller_than_the_kept_classes(toy_model):
    model = toy_model().train()
    labels = torch.randint(0, 2, (2, 64, 64))
    out = model(torch.randn(2, 3, 64, 64), model.vocabulary_encoder.tokenize(["cat", "dog"]), labels=labels)
    assert out.kept.tolist() == [[0, 1], [0, 1]]
    assert segmentation_loss(out.logits, out.kept, labels, 2) < 10


def test_parts_divided_by_their_mean_average_to_the_whole(case):
    logits, kept, labels = case
    labels[1, 3:9] = 255
    whole = segmentation_loss(logits, kept, labels, NUM_CLASSES, ignored_are_negatives=False)
    pixels = sum(kept_class_labels(labels, kept, NUM_CLASSES).ge(0).flatten(1).sum(1)) / 2
    parts = [
        segmentation_loss(*part, NUM_CLASSES, ignored_are_negatives=False, num_pixels=pixels)
        for part in zip(*(tensor.split(1) for tensor in case), strict=True)
    ]
    torch.testing.assert_close(sum(parts) / 2, whole)


@pytest.mark.parametrize("num_kept", [1, 3, 7, 20, None])
def test_pixels_that_count_follow_from_labels_alone(num_kept):
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 9, (3, 8, 8), generator=generator).where(
        torch.rand(3, 8, 8, generator=generator) < 0.7, 255
    )
    kept, _ = CRM()([torch.randn(3, 7, 4, 4, generator=generator)], num_kept, count_class_pixels(labels, 7))
    expected = (kept_class_labels(labels, kept, 7) >= 0).sum()
    assert count_pixels(labels, 7, num_kept) == expected


@pytest.fixture
def with_background(case):
    """The case, with a block of pixels that are negative for every class."""
    logits, kept, labels = case
    labels[:, 6:8] = BACKGROUND
    return logits, kept, labels


@pytest.mark.parametrize("loss", [segmentation_loss, distillation_loss])
def test_background_is_a_negative_of_every_class(with_background, loss):
    """It counts as the pixels of a class beyond the vocabulary would that is kept and whose own map is not counted."""
    logits, kept, labels = with_background
    inputs = (logits, kept) if loss is segmentation_loss else (logits, logits.flip(0).sigmoid(), kept)
    options = {"ignored_are_negatives": False}
    ignored = labels.where(labels != BACKGROUND, 255)
    found, without = (loss(*inputs, x, NUM_CLASSES, **options) for x in (labels, ignored))
    alone = labels.where(labels == BACKGROUND, 255)
    background = loss(*inputs, alone, NUM_CLASSES, **options)
    size = logits.shape[-2:] if loss is distillation_loss else labels.shape[-2:]
    reduced = [F.interpolate(x[:, None].float(), size, mode="nearest-exact")[:, 0].long() for x in (ignored, alone)]
    parts = [
        float((kept_class_labels(reduced[0], kept, NUM_CLASSES) >= 0).sum()),
        float((reduced[1] == BACKGROUND).sum()),
    ]
    torch.testing.assert_close(found, (without * parts[0] + background * parts[1]) / sum(parts))
    assert background > 0
    as_usual = [loss(*inputs, x, NUM_CLASSES) for x in (labels, ignored)]
    assert torch.equal(*as_usual), "where ignored pixels are negatives, the two are the same"


def test_background_alone_is_the_mean_of_all_negatives(case):
    logits, kept, labels = case
    nothing = torch.full_like(labels, BACKGROUND)
    loss = segmentation_loss(logits, kept, nothing, NUM_CLASSES, ignored_are_negatives=False)
    torch.testing.assert_close(loss, dense_loss(logits, kept, torch.full_like(labels, 255)))


def test_pixels_of_background_count(with_background):
    logits, kept, labels = with_background
    whole = segmentation_loss(logits, kept, labels, NUM_CLASSES, ignored_are_negatives=False)
    ignored = labels.where(labels != BACKGROUND, 255)
    assert count_pixels(labels, NUM_CLASSES, 4) == count_pixels(ignored, NUM_CLASSES, 4) + 2 * 2 * 12
    counted = (kept_class_labels(labels, kept, NUM_CLASSES) >= 0) | (labels == BACKGROUND)
    parts = [
        segmentation_loss(*part, NUM_CLASSES, ignored_are_negatives=False, num_pixels=counted.sum() / 2)
        for part in zip(*(tensor.split(1) for tensor in with_background), strict=True)
    ]
    torch.testing.assert_close(sum(parts) / 2, whole)
