"""torch's deterministic algorithms: nothing in the network refuses them, and the backward of resizing is right."""

import pytest
import torch
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

import err_seg
from err_seg.modeling.layers import DeterministicResize, resize
from err_seg.modeling.loss import segmentation_loss
from err_seg.utils.device import deterministic
from tests.helpers.toy import TOY

# Of the documented list of what raises on CUDA (torch.use_deterministic_algorithms), and cumsum of floats, which raised
# up to torch 2.8
REFUSED = (
    *("upsample_linear1d_backward", "upsample_bilinear2d_backward", "upsample_bicubic2d_backward"),
    *("upsample_trilinear3d_backward", "avg_pool3d_backward", "_adaptive_avg_pool2d_backward"),
    *("_adaptive_avg_pool3d_backward", "adaptive_max_pool2d_backward", "fractional_max_pool", "max_unpool"),
    *("reflection_pad", "replication_pad", "max_pool3d_with_indices_backward", "nll_loss", "_ctc_loss", "put"),
    *("_embedding_bag", "histc", "median", "kthvalue", "grid_sampler", "scatter_reduce", "index_reduce", "cumsum"),
)
TOY_VIT = ["MODEL.CLIP.NAME", TOY[3].replace("toy_clip", "toy_vit"), "MODEL.HSM.ENABLED", False]
TOY_VIT += ["MODEL.GUD.GUIDANCE_DIMS", [0, 0, 0]]


class Recorded(TorchDispatchMode):
    """Note what is computed."""

    def __init__(self):
        super().__init__()
        self.names = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func._overloadpacket.__name__
        weights = name == "bincount" and len(args) > 1
        self.names.add(f"{name} with weights" if weights else name)
        return func(*args, **(kwargs or {}))

    def refused(self):
        exact = {name for name in self.names if name.rstrip("_") in REFUSED}
        return exact | {n for n in self.names if n == "bincount with weights" or n.startswith(REFUSED[9:12])}


@pytest.mark.parametrize("overrides", [[], TOY_VIT], ids=["convnext", "vit"])
def test_nothing_in_training_refuses_deterministic_algorithms(toy_cfg, overrides):
    tuned = ["MODEL.CLIP.IMAGE_TUNING", "full", "MODEL.CLIP.TEXT_TUNING", "full", "MODEL.HSM.TRAIN_CONV", True]
    cfg = toy_cfg("MODEL.DEVICE", "meta", "INPUT.CROP_SIZE", 96, *(tuned[:4] if overrides else tuned), *overrides)
    model = err_seg.build_model(cfg).train()
    meta = {"device": "meta", "dtype": torch.int64}
    labels = torch.empty(2, 96, 96, **meta)
    with deterministic(True), Recorded() as done:
        out = model(torch.empty(2, 3, 96, 96, device="meta"), torch.empty(7, 2, 9, **meta), labels=labels)
        segmentation_loss(out.logits, out.kept, labels, 7).backward()
    assert {"convolution_backward", "upsample_bilinear2d", "scatter_add_"} <= done.names
    assert not done.refused()


def test_the_list_is_one_that_notices():
    maps = torch.empty(1, 1, 4, 4, device="meta", requires_grad=True)
    with Recorded() as done:
        F.interpolate(maps, (8, 8), mode="bicubic").sum().backward()
        F.interpolate(maps, (8, 8), mode="bilinear").sum().backward()
        maps.flatten().cumsum(0)
    assert done.refused() == {"upsample_bicubic2d_backward", "upsample_bilinear2d_backward", "cumsum"}


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("size", [(13, 20), (5, 3), (7, 6), (1, 9)])
def test_resizing_deterministically_is_resizing(mode, align_corners, size):
    torch.manual_seed(0)
    maps = torch.randn(2, 3, 7, 6, requires_grad=True)
    usual = F.interpolate(maps, size, mode=mode, align_corners=align_corners)
    own = DeterministicResize.apply(maps, size, align_corners, mode)
    assert torch.equal(own, usual)
    weight = torch.randn_like(usual)
    (expected,), (gradient,) = (torch.autograd.grad((out * weight).sum(), maps) for out in (usual, own))
    torch.testing.assert_close(gradient, expected, rtol=1e-5, atol=1e-5)


def test_half_gradients_keep_their_type():
    maps = torch.randn(1, 2, 4, 4, dtype=torch.bfloat16, requires_grad=True)
    DeterministicResize.apply(maps, (8, 8), False, "bilinear").sum().backward()
    assert maps.grad.dtype == torch.bfloat16
    assert maps.grad.sum().item() == pytest.approx(128, rel=0.02)


def test_the_cpu_keeps_torchs_own():
    maps = torch.randn(1, 2, 4, 4, requires_grad=True)
    with deterministic(True):
        assert "Upsample" in type(resize(maps, (8, 8)).grad_fn).__name__
