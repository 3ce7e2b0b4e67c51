"""fp16 and bf16: the residual stream of ESCF stays finite, and in fp32."""

import numpy as np
import pytest
import torch

import err_seg
from err_seg.mini.vocabulary import VOCABULARY as MINI
from err_seg.utils.device import PRECISIONS, autocast

CPU = torch.device("cpu")
LARGEST_FP16 = torch.finfo(torch.float16).max
LOWER = ["fp16", "bf16"]


def fuse(model, precision, *, scale=1.0):
    """Run ESCF on random maps; return its result and what every module hands on."""
    torch.manual_seed(0)
    x, text = scale * torch.randn(8, 16, 4, 4), torch.randn(2, 4, model.encoder.embedding_dim)
    deep = [torch.randn(2, dim, side, side) for (_, dim, _), side in zip(model.encoder.maps.deep, (2, 4), strict=True)]
    stream = []
    modules = [module for layer in model.head.escf.layers for module in (layer.sfm, layer.cfm)]
    hooks = [module.register_forward_hook(lambda *args: stream.append(args[2])) for module in modules]
    with torch.no_grad(), autocast(CPU, PRECISIONS[precision]):
        out = model.head.escf(x.to(PRECISIONS[precision] or torch.float32), deep, text)
    for hook in hooks:
        hook.remove()
    return out, stream


@pytest.mark.parametrize("precision", LOWER)
def test_the_stream_is_fp32(toy_model, precision):
    out, stream = fuse(toy_model().eval(), precision)
    assert {tensor.dtype for tensor in (out, *stream)} == {torch.float32}


def test_sums_beyond_the_range_of_fp16_stay_finite(toy_model):
    model = toy_model().eval()
    with torch.no_grad():
        for layer in model.head.escf.layers:  # what a single branch adds fits
            layer.sfm.attention.proj.bias.fill_(0.4 * LARGEST_FP16)
            layer.cfm.attention.proj.bias.fill_(0.4 * LARGEST_FP16)
    exact, _ = fuse(model, "fp32")
    out, _ = fuse(model, "fp16")
    assert exact.abs().max() > 1.2 * LARGEST_FP16
    assert out.isfinite().all()
    torch.testing.assert_close(out, exact, rtol=2e-3, atol=0)


@pytest.mark.parametrize("precision", LOWER)
def test_the_trained_network_stays_far_from_the_range_of_fp16(precision):
    model = err_seg.load("mini", device="cpu", precision=precision)
    largest = []
    for part in (*model.head.escf.layers, model.head.escf, *model.head.gud.stages, model.head.gud.head):
        part.register_forward_hook(lambda *args: largest.append(args[2].float().abs().max().item()))
    image = np.random.default_rng(0).integers(0, 256, (96, 128, 3), dtype=np.uint8)
    model.predict([image], MINI[:12])
    assert len(largest) > 4
    assert max(largest) < LARGEST_FP16 / 100
