"""ConvNeXt-CLIP read densely: HSM's branch, and the head at every pixel, against timm's and open_clip's own."""

import pytest
import torch
from torch.nn import functional as F

from err_seg.modeling.encoder import GUIDANCE_BOUND
from tests.modeling.test_switches import FASTVIT


@pytest.fixture
def encoder(toy_model):
    encoder = toy_model().encoder
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in encoder.clip.visual.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return type(encoder)(encoder.clip).eval()


@torch.no_grad()
def test_the_branch_is_stage_4_s_downsampling_with_stride_1(encoder):
    own = encoder.clip.visual.trunk.stages[3].downsample
    f3 = torch.randn(2, 48, 6, 8, generator=torch.Generator().manual_seed(0))
    dense = []
    encoder.hsm.conv.register_forward_hook(lambda *call: dense.append(call[2]))
    out = encoder.hsm(f3)
    torch.testing.assert_close(dense[0][:, :, 1:-1:2, 1:-1:2], own(f3))
    assert torch.equal(out, F.interpolate(dense[0], (6, 8), mode="bilinear"))
    assert encoder.hsm.norm.eps == own[0].eps
    for mine, theirs in zip(encoder.hsm.parameters(), own.parameters(), strict=True):
        assert torch.equal(mine, theirs)
        assert mine.data_ptr() != theirs.data_ptr()


@torch.no_grad()
def test_the_head_is_clips_own_at_every_pixel(encoder):
    f4 = torch.randn(2, 64, 3, 2, generator=torch.Generator().manual_seed(0))
    dense, visual = encoder.project(f4), encoder.clip.visual
    for row in range(3):
        for column in range(2):
            pixel = f4[:, :, row : row + 1, column : column + 1]
            torch.testing.assert_close(dense[:, :, row, column], visual.head(visual.trunk.forward_head(pixel)))


@torch.no_grad()
@pytest.mark.parametrize("overrides", [(), FASTVIT], ids=["ConvNeXt", "FastViT"])
def test_maps_are_the_stages_cut_to_the_bound(toy_model, overrides):
    encoder, stages = toy_model(*overrides).encoder.eval(), []
    trunk = encoder.clip.visual.trunk
    with torch.no_grad():
        for stage in trunk.stages:  # so that some values exceed the bound
            stage.register_forward_hook(lambda module, given, out: 30 * out)
    for stage in trunk.stages[:3]:
        stage.register_forward_hook(lambda *call: stages.append(call[2]))
    stages_4 = []
    trunk.stages[3].downsample.register_forward_hook(lambda *call: stages_4.append(call[1][0]))
    features = encoder(torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(0)))
    f1, f2, f3 = stages
    assert torch.equal(stages_4[0], f3)  # stage 4 reads what is not cut
    assert f3.abs().max() > GUIDANCE_BOUND
    for maps, expected in zip(features.shallow, (f3, f2, f1), strict=True):
        assert torch.equal(maps, expected.clamp(-16, 16))
    assert torch.equal(features.deep[1], features.shallow[0])
    assert features.deep[0].abs().max() <= GUIDANCE_BOUND
    described = encoder.maps
    assert [m.name for m in described.deep + described.shallow] == ["f4", "f3", "f3", "f2", "f1"]
    assert [(m.name, m.stride, m.channels) for m in described.embeddings] == [("e16", 16, 32), ("e32", 32, 32)]
    for maps, kind in zip(features, described, strict=True):
        for map_, (_, channels, stride) in zip(maps, kind, strict=True):
            assert map_.shape == (1, channels, 64 // stride, 96 // stride)


@torch.no_grad()
@pytest.mark.parametrize("overrides", [(), FASTVIT], ids=["ConvNeXt", "FastViT"])
def test_the_coarse_map_is_clips_own_with_and_without_hsm(toy_model, overrides):
    images = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with_hsm = toy_model(*overrides).encoder.eval()
    without = type(with_hsm)(with_hsm.clip, hsm=False).eval()
    assert without.hsm is None
    assert [m.name for m in without.maps.embeddings] == ["e32"]
    both, (e32,) = with_hsm(images).embeddings, without(images).embeddings
    assert len(both) == 2
    assert torch.equal(both[1], e32)
