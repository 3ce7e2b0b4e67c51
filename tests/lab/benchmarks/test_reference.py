"""The baseline computes what the network computes, in the released code's way."""

import pytest
import torch

from err_seg.lab.benchmarks.reference import DROPPED, all_positions, dense_labels, dense_loss, reference
from err_seg.modeling.clip import embed_prompts
from err_seg.modeling.layers import GuidedConv2d, GuidedLinear
from err_seg.modeling.loss import segmentation_loss
from tests.helpers.toy import VOCABULARY

SMALL = ("MODEL.CRM.NUM_KEPT", 3, "MODEL.CRM.NUM_KEPT_TRAIN", 5, "MODEL.ESCF.DROP_PATH", 0.0)


@torch.no_grad()
def test_predictions_are_the_networks_own(toy_model, images):
    model = toy_model(*SMALL).eval()
    inputs = model.preprocess([torch.from_numpy(image).permute(2, 0, 1) for image in images])
    text = model.embed_vocabulary(VOCABULARY)
    ours, theirs = model(inputs, text), reference(model)(inputs, text)
    assert theirs.logits.shape == (3, len(VOCABULARY), 16, 16)
    torch.testing.assert_close(theirs.logits.gather(1, ours.kept[:, :, None, None].expand_as(ours.logits)), ours.logits)
    assert (theirs.logits == DROPPED).sum() == 3 * (len(VOCABULARY) - 3) * 16 * 16
    assert torch.equal(theirs.class_scores, ours.class_scores)
    labels = dense_labels(theirs.logits, (40, 50))
    for found, expected in zip(labels, model.compact(ours, VOCABULARY, [(40, 50)] * 3), strict=True):
        assert (found == expected.labels).float().mean() > 0.99, "but where rounding decides"


def test_losses_and_gradients_are_the_networks_own(toy_model):
    model = toy_model(*SMALL).train()
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(2, 3, 64, 64, generator=generator)
    labels = torch.randint(-1, 4, (2, 64, 64), generator=generator)
    tokens = model.vocabulary_encoder.tokenize(VOCABULARY)
    padded = all_positions(tokens, model.vocabulary_encoder.context_length)
    assert tokens.shape[-1] < padded.shape[-1] == model.vocabulary_encoder.context_length

    out = model(inputs, tokens, labels=labels)
    ours = segmentation_loss(out.logits, out.kept, labels, len(VOCABULARY))
    theirs = dense_loss(reference(model)(inputs, padded, labels=labels).logits, labels)
    torch.testing.assert_close(ours, theirs)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for own, other in zip(*(torch.autograd.grad(loss, trained) for loss in (ours, theirs)), strict=True):
        torch.testing.assert_close(own, other, rtol=1e-3, atol=1e-6)


def test_parameters_are_shared_and_the_network_is_as_before(toy_model):
    model = toy_model()
    plain = reference(model)
    assert [p.data_ptr() for p in plain.parameters()] == [p.data_ptr() for p in model.parameters()]
    guided = [module for module in model.modules() if isinstance(module, GuidedLinear | GuidedConv2d)]
    assert guided
    assert {type(module) for module in guided} == {GuidedLinear, GuidedConv2d}
    assert not {type(module) for module in plain.modules()} & {GuidedLinear, GuidedConv2d}


@torch.no_grad()
def test_empty_positions_do_not_matter(toy_model):
    model = toy_model()
    tokens = model.vocabulary_encoder.tokenize(VOCABULARY)
    short, whole = (embed_prompts(model.encoder.clip, t) for t in (tokens, all_positions(tokens, 77)))
    torch.testing.assert_close(short, whole)


@pytest.mark.parametrize("value", [-1, 255])
def test_ignored_pixels_are_negatives_of_every_class(value):
    logits = torch.randn(1, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    labels = torch.full((1, 8, 8), value)
    torch.testing.assert_close(
        dense_loss(logits, labels), segmentation_loss(logits, torch.tensor([[0, 1, 2]]), labels, 3)
    )
