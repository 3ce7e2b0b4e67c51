"""What must hold whatever the weights: order of classes, batches, the compact result, precision, kinds of input."""

import numpy as np
import pytest
import torch
from PIL import Image

from tests.helpers.toy import VOCABULARY


def network_input(model, images):
    return model.preprocess([torch.from_numpy(image).permute(2, 0, 1) for image in images])


@torch.no_grad()
def test_order_of_classes_does_not_matter(toy_model, images):
    model = toy_model().eval()
    inputs, text = network_input(model, images), model.embed_vocabulary(VOCABULARY)
    order = torch.tensor([3, 6, 0, 2, 5, 1, 4])
    straight, shuffled = model(inputs, text), model(inputs, text[order])
    # class i of the shuffled vocabulary is class order[i]
    dense = torch.full((2, 3, len(VOCABULARY), 16, 16), -1.0)
    dense[0].scatter_(1, straight.kept[:, :, None, None].expand(-1, -1, 16, 16), straight.logits.sigmoid())
    dense[1].scatter_(1, order[shuffled.kept][:, :, None, None].expand(-1, -1, 16, 16), shuffled.logits.sigmoid())
    torch.testing.assert_close(dense[0], dense[1], rtol=0, atol=1e-5)
    torch.testing.assert_close(straight.class_scores[:, order], shuffled.class_scores)


@torch.no_grad()
def test_keeping_at_least_all_classes_is_crm_off(toy_model, images):
    with_crm, without = toy_model().eval(), toy_model("MODEL.CRM.ENABLED", False).eval()
    inputs, text = network_input(with_crm, images), with_crm.embed_vocabulary(VOCABULARY)
    everything = with_crm(inputs, text, num_kept=100)
    assert torch.equal(everything.kept, torch.arange(len(VOCABULARY)).expand(3, -1))
    torch.testing.assert_close(everything.logits, without(inputs, text).logits)


@torch.no_grad()
def test_keeping_fewer_classes_is_not_the_same_as_keeping_all(toy_model, images):
    """The kept classes' logits depend on which others are kept: CFM compares them."""
    model = toy_model().eval()
    inputs, text = network_input(model, images), model.embed_vocabulary(VOCABULARY)
    few, all_classes = model(inputs, text, num_kept=3), model(inputs, text, num_kept=100)
    index = few.kept[:, :, None, None].expand_as(few.logits)
    assert (few.logits - all_classes.logits.gather(1, index)).abs().max() > 1e-3


def test_a_batch_is_its_images_one_by_one(toy_model, images):
    model = toy_model()
    together = model.predict(images, VOCABULARY, batch_size=3)
    for image, result in zip(images, together, strict=True):
        alone = model.predict([image], VOCABULARY)[0]
        assert result.size == image.shape[:2] == tuple(result.labels.shape)
        assert torch.equal(result.kept, alone.kept)
        torch.testing.assert_close(result.maps, alone.maps, rtol=0, atol=1e-5)
        first, second = alone.maps.topk(2, dim=0).values
        decided = first - second > 2e-5  # elsewhere rounding may decide
        assert decided.float().mean() > 0.5
        assert torch.equal(result.labels[decided], alone.labels[decided])


def test_compact_equals_dense(toy_model, images):
    for result in toy_model().predict(images, VOCABULARY, num_kept=5):
        dense = result.dense()
        assert dense.shape == (len(VOCABULARY), *result.size)
        scores, labels = dense.max(dim=0)
        assert torch.equal(scores, result.scores)
        assert torch.equal(labels, result.labels.long())
        assert torch.equal(dense[result.kept], result.maps)
        dropped = [i for i in range(len(VOCABULARY)) if i not in result.kept]
        assert len(dropped) == 2
        assert dense[dropped].abs().max() == 0


def test_more_kept_classes_than_are_resized_at_a_time(toy_model, images):
    """The arg-max over 20 classes in several portions is the arg-max."""
    names = [f"thing {i}" for i in range(24)]
    result = toy_model().predict(images[:1], names, num_kept=20)[0]
    assert torch.equal(result.labels.long(), result.kept[result.maps.argmax(dim=0)])


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_close_to_full(toy_model, images, dtype):
    model = toy_model().eval()
    inputs, text = network_input(model, images), model.embed_vocabulary(VOCABULARY)
    full = model(inputs, text, num_kept=100)
    with torch.autocast("cpu", dtype=dtype):
        half = model(inputs, text, num_kept=100)
    assert half.class_scores.dtype == torch.float32
    difference = (full.logits.sigmoid() - half.logits.float().sigmoid()).abs()
    assert difference.mean() < 0.02


def test_forward_has_no_loop_over_images_or_classes(toy_model, images):
    """The number of operations does not grow with B, T or K, and none waits for a value."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Counter(TorchDispatchMode):
        calls = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            self.calls += 1
            assert func is not torch.ops.aten._local_scalar_dense.default, "a value was read back to the host"
            return func(*args, **(kwargs or {}))

    model = toy_model().eval()
    calls = []
    for count, num_classes, num_kept in ((2, 7, 4), (3, 20, 10)):
        inputs = network_input(model, images[:count])
        text = torch.randn(num_classes, 32)
        with torch.no_grad(), Counter() as counter:
            model(inputs, text, num_kept)
        calls.append(counter.calls)
    assert calls[0] == calls[1]


def test_images_may_be_arrays_tensors_pil_images_or_paths(toy_model, images, tmp_path):
    model, image = toy_model(), images[0]
    Image.fromarray(image).save(tmp_path / "image.png")
    forms = [
        image,
        torch.from_numpy(image),
        torch.from_numpy(image).permute(2, 0, 1),
        Image.fromarray(image),
        tmp_path / "image.png",
        str(tmp_path / "image.png"),
    ]
    results = model.predict(forms, VOCABULARY)
    for result in results[1:]:
        assert torch.equal(result.probabilities, results[0].probabilities)


def test_size_of_the_result_on_request(toy_model, images):
    result = toy_model().predict(images[:1], VOCABULARY, size=(31, 17))[0]
    assert result.labels.shape == result.scores.shape == (31, 17)
    assert result.maps.shape == (4, 31, 17)
    assert result.resized((5, 9)).labels.shape == (5, 9)
    assert result.resized([31, 17]) is result


def test_one_pixel_and_very_wide_images(toy_model):
    for height, width in ((1, 1), (3, 700)):
        result = toy_model().predict([np.zeros((height, width, 3), dtype=np.uint8)], ["cat", "dog"])[0]
        assert result.labels.shape == (height, width)
