"""How images come to the device and to the network's size."""

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from err_seg.utils.device import upload
from tests.helpers.toy import VOCABULARY


class Copies(TorchDispatchMode):
    """Collects what is copied to CUDA, and whether the copy waits."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        device = kwargs.get("device")
        if func is torch.ops.aten._to_copy.default and device is not None and device.type == "cuda":
            self.seen.append((tuple(args[0].shape), kwargs.get("non_blocking", False)))
        return func(*args, **kwargs)


def test_images_go_to_the_device_in_one_go_and_without_waiting(toy_model):
    model = toy_model()
    with FakeTensorMode(allow_non_fake_inputs=True), Copies() as copies:
        model.pixel_mean, model.pixel_std = model.pixel_mean.to("cuda"), model.pixel_std.to("cuda")
        batch = torch.empty(4, 3, 64, 64, dtype=torch.uint8)
        for images in (batch, list(batch)):
            copies.seen.clear()
            assert model.preprocess(images).device.type == "cuda"
            assert copies.seen == [((4, 3, 64, 64), True)]
        copies.seen.clear()
        images = [torch.empty(3, side, 50, dtype=torch.uint8) for side in (30, 40)]
        assert model.preprocess(images).shape == (2, 3, 64, 64)
        assert copies.seen == [((1, 3, 30, 50), True), ((1, 3, 40, 50), True)]


def test_on_the_cpu_nothing_is_pinned_or_copied(toy_model, images):
    tensor = torch.from_numpy(images[0])
    assert upload(tensor, torch.device("cpu")) is tensor
    model = toy_model()
    image = tensor.permute(2, 0, 1)
    expected = (image.float() - model.pixel_mean) / model.pixel_std
    expected = torch.nn.functional.interpolate(expected[None], (64, 64), mode="bilinear")
    for batch in ([image], image[None], [image, image]):
        assert torch.equal(model.preprocess(batch)[:1], expected)
    for dtype in (torch.float32, torch.float64, torch.int32):
        other = image.to(dtype)
        before = other.clone()
        found = model.preprocess([other])
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, expected)
        assert torch.equal(other, before)
    assert model.predict(images, VOCABULARY, batch_size=3)
