"""Refined borders: maps that follow the edges of the image."""

import pytest
import torch

from err_seg import Segmentation
from err_seg.modeling.layers import resize
from err_seg.prediction import class_maps
from err_seg.prediction.refine import RADIUS, fit, local_mean, refined
from tests.helpers.toy import VOCABULARY

SIZE = (96, 132)


def result_of(maps, size=SIZE):
    classes = torch.arange(len(maps))
    return Segmentation(maps, classes, tuple(f"thing {i}" for i in classes), size, torch.ones(len(maps)))


def two_halves(edge, size=SIZE):
    """An image that is red to the left of a column and green to the right."""
    image = torch.zeros(3, *size, dtype=torch.uint8)
    image[0, :, :edge], image[1, :, edge:] = 200, 180
    return image


@pytest.mark.parametrize("edge", [50, 61, 67])
def test_borders_lie_where_the_image_changes(edge):
    """The network's map is a ramp, whose middle is some pixels beside the edge."""
    image = two_halves(edge)
    ramp = (torch.arange(22).expand(16, 22) / 21).clamp(0, 1)
    result = result_of(torch.stack([1 - ramp, ramp]))
    true = (torch.arange(SIZE[1]) >= edge).expand(SIZE)
    wrong = [(found.labels.bool() != true).float().mean().item() for found in (result, refined(result, image))]
    assert wrong[1] == 0
    assert abs(edge - 66) <= 1 or wrong[0] > 0.03


def test_linear_functions_of_the_colours_are_kept():
    """At the image's own resolution, of which the network has seen nothing."""
    generator = torch.Generator().manual_seed(0)
    image = torch.randint(0, 256, (3, 64, 64), generator=generator, dtype=torch.uint8)
    blocks = image.float().view(3, 16, 4, 16, 4).mean(dim=(2, 4)) / 255
    factors = torch.tensor([[0.5, 0.1, 0.2], [-0.3, 0.4, 0.0]])
    result = result_of(torch.einsum("kc,chw->khw", factors, blocks) + 0.3, (64, 64))
    expected = torch.einsum("kc,chw->khw", factors, image.float() / 255) + 0.3
    # what counts as noise shrinks the factors, here by a fifth at most
    error = refined(result, image).maps - expected.clamp(0, 1)
    plain = resize(result.probabilities[None], (64, 64))[0] - expected.clamp(0, 1)
    assert error.abs().mean() < 0.25 * plain.abs().mean()


def test_an_image_without_edges_smooths():
    maps = torch.rand(3, 16, 22, generator=torch.Generator().manual_seed(0))
    coefficients = fit(torch.full((3, 16, 22), 0.7), maps)
    assert coefficients[:3].abs().max() < 1e-3
    assert torch.allclose(coefficients[3], local_mean(local_mean(maps)), atol=1e-3)
    assert torch.allclose(
        local_mean(maps)[:, 8, 8], maps[:, 8 - RADIUS : 9 + RADIUS, 8 - RADIUS : 9 + RADIUS].mean((1, 2))
    )


def test_a_refined_result_is_a_result_like_any_other(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    image = torch.randint(0, 256, (3, *SIZE), generator=generator, dtype=torch.uint8)
    plain = result_of(torch.rand(11, 16, 16, generator=generator))
    result = refined(plain, image)
    maps = result.maps
    assert maps.shape == (11, *SIZE)
    assert 0 <= maps.min() <= maps.max() <= 1
    assert (result.labels == maps.argmax(dim=0)).float().mean() > 0.999  # but for ties
    assert torch.allclose(result.scores, maps.amax(dim=0), atol=1e-6)
    assert torch.allclose(result.dense(), maps, atol=1e-6)
    assert torch.equal(result.probabilities, plain.probabilities)
    small = result.resized((40, 50))
    assert small.labels.shape == (40, 50)
    assert small.labels.unique().numel() > 1
    moved = result.to("meta")
    assert {moved.guide.device.type, moved.coefficients.device.type, moved.labels.device.type} == {"meta"}
    monkeypatch.setattr(class_maps, "PIXELS_AT_A_TIME", 3000)
    assert torch.allclose(refined(plain, image).scores, result.scores, atol=1e-5)


@pytest.mark.parametrize("options", [{}, {"tile": 64}, {"batch_size": 2}, {"size": (50, 40)}])
def test_prediction(toy_model, images, options):
    model = toy_model()
    plain, fine = (model.predict(images, VOCABULARY, refine=refine, **options) for refine in (False, True))
    for image, before, after in zip(images, plain, fine, strict=True):
        assert torch.equal(before.probabilities, after.probabilities)
        assert torch.equal(before.kept, after.kept)
        assert after.size == before.size
        expected = refined(before, torch.from_numpy(image).permute(2, 0, 1))
        assert torch.equal(after.labels, expected.labels)
        assert not torch.equal(after.labels, before.labels)


def test_a_refined_result_describes_itself_like_any_other():
    result = refined(result_of(torch.rand(2, 12, 16)), two_halves(50))
    assert repr(result) == "Segmentation(96×132 pixels, 2 of 2 classes: thing 0, thing 1)"
