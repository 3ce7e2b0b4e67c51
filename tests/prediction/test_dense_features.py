"""Dense features are what the network compares with words, cell by cell, and so do without the network's head."""

import numpy as np
import pytest
import torch

from err_seg import ArgumentError, ImageReadError, NonFiniteError
from tests.helpers.toy import VOCABULARY


@pytest.fixture
def model(toy_model):
    return toy_model()


def test_their_cosines_with_words_are_the_cost_map(model, images):
    found = model.features(images[0])
    height, width = images[0].shape[:2]
    assert (found.embeddings.shape, found.embeddings.dtype) == ((model.encoder.embedding_dim, 4, 4), torch.float32)
    assert (found.size, found.stride) == ((height, width), (height / 4, width / 4))
    assert torch.allclose(found.embeddings.norm(dim=0), torch.ones(4, 4))
    text = model.embed_vocabulary(VOCABULARY)
    pixels = torch.from_numpy(images[0]).permute(2, 0, 1)
    with torch.no_grad():
        cost = model.head.cost_maps(model.encoder(model.preprocess([pixels])), text)[0][0]
    assert torch.allclose(torch.einsum("td,dhw->thw", text, found.embeddings), cost, atol=1e-6)
    scores, _ = model.head.crm.winners([cost[None]])
    assert torch.equal(torch.einsum("td,dhw->thw", text, found.embeddings).flatten(1).argmax(dim=0), scores[0, 0])


def test_one_image_and_several(model, images):
    several = model.features(images, batch_size=2)
    assert [found.size for found in several] == [image.shape[:2] for image in images]
    for found, image in zip(several, images, strict=True):
        assert torch.allclose(found.embeddings, model.features(image).embeddings, atol=1e-5)
    assert model.features(iter(images[:1]))[0].size == images[0].shape[:2]
    assert model.features([]) == []


def test_without_hsm_a_cell_is_larger(toy_model, images):
    found = toy_model("MODEL.HSM.ENABLED", False).features(images[0])
    assert found.embeddings.shape[1:] == (2, 2)
    assert found.stride == (images[0].shape[0] / 2, images[0].shape[1] / 2)


def test_arrays_mean_what_they_mean_to_predict(model, images):
    expected = model.features(images[0]).embeddings
    scaled, swapped = images[0] / 255, np.ascontiguousarray(images[0][:, :, ::-1])
    assert torch.allclose(model.features(scaled, value_range=(0, 1)).embeddings, expected, atol=1e-5)
    assert torch.equal(model.features(swapped, channel_order="bgr").embeddings, expected)
    assert not torch.equal(model.features(swapped).embeddings, expected)


def test_what_cannot_be_used(model, images, tmp_path):
    with pytest.raises(ArgumentError, match="batch_size"):
        model.features(images, batch_size=0)
    with pytest.raises(ImageReadError, match=r"image 1: .*none\.png"):
        model.features([images[0], tmp_path / "none.png"])
    with pytest.raises(TypeError, match=r"^features\(\) has no 'imgsz'"):
        model.features(images[0], imgsz=640)
    with pytest.raises(ArgumentError, match="training mode"):
        model.train().features(images[0])
    model.eval()
    with torch.no_grad():
        next(iter(model.encoder.clip.visual.parameters())).fill_(torch.nan)
    with pytest.raises(NonFiniteError, match="features hold NaN"):
        model.features(images[0])


def test_a_generator_computes_as_it_would_elsewhere(model, images):
    """Without the precision and the missing gradients of the network."""

    def generated():
        for image in images:
            assert torch.is_grad_enabled()
            yield image

    assert len(model.features(generated())) == 3
