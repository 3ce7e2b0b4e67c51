"""ESCF's modules: what stochastic depth drops together, and what is independent of what."""

import pytest
import torch

from err_seg.modeling.escf import CFM, SFM, ESCFLayer

SIZES = {"dim": 8, "guidance_dim": 4, "num_heads": 2}
BATCH, CLASSES, GRID = 2, 5, (4, 6)


@pytest.fixture
def maps():
    generator = torch.Generator().manual_seed(0)
    return (
        torch.randn(BATCH, CLASSES, *GRID, 8, generator=generator),
        torch.randn(BATCH, *GRID, 4, generator=generator),
        torch.randn(BATCH, CLASSES, 4, generator=generator),
    )


def lively(module):
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / 2)
    return module


@torch.no_grad()
def test_sfm_drops_the_map_of_a_class_as_a_whole(maps):
    x, guidance, _ = maps
    torch.manual_seed(0)
    change = lively(SFM(**SIZES, ssr_ratio=2, drop_path_rate=0.7)).train()(x, guidance) - x
    dropped = (change == 0).all(dim=-1).flatten(2)  # B×K×HW
    assert torch.equal(dropped.any(dim=2), dropped.all(dim=2))
    assert 0 < dropped.all(dim=2).sum() < BATCH * CLASSES
    assert dropped.all(dim=2)[0].unique().numel() == 2  # classes of one image are drawn one by one


@torch.no_grad()
def test_cfm_drops_all_classes_at_a_place_together(maps):
    x, _, guidance = maps
    torch.manual_seed(0)
    change = lively(CFM(**SIZES, csr_ratio=1, drop_path_rate=0.7)).train()(x, guidance) - 2 * x
    dropped = (change.abs() < 1e-6).all(dim=-1).flatten(2)  # B×K×HW
    assert torch.equal(dropped.any(dim=1), dropped.all(dim=1))
    assert dropped.all(dim=1)[0].unique().numel() == 2


@torch.no_grad()
def test_nothing_is_dropped_in_evaluation(maps):
    x, image_guidance, text_guidance = maps
    for kind, guidance in ((SFM, image_guidance), (CFM, text_guidance)):
        outputs = [lively(kind(**SIZES, drop_path_rate=rate)).eval()(x, guidance) for rate in (0.0, 0.7)]
        assert torch.equal(*outputs)


@torch.no_grad()
@pytest.mark.parametrize("ssr_ratio", [1, 2])
def test_sfm_keeps_classes_and_cfm_places_apart(maps, ssr_ratio):
    x, image_guidance, text_guidance = maps
    sfm = lively(SFM(**SIZES, ssr_ratio=ssr_ratio)).eval()
    cfm = lively(CFM(**SIZES, csr_ratio=2)).eval()
    other = x.clone()
    other[1, 3] += 1
    moved = (sfm(other, image_guidance) - sfm(x, image_guidance)).abs().amax(dim=(2, 3, 4)) > 0
    assert moved.nonzero().tolist() == [[1, 3]]
    other = x.clone()
    other[1, :, :2, :2] += torch.randn(8)  # one of CSR's places, at the corner
    moved = (cfm(other, text_guidance) - cfm(x, text_guidance)).abs().amax(dim=(1, 4)) > 1e-5
    assert moved[1, 0, 0]
    assert not moved[0].any()
    assert not moved[1, -1, -1]


@torch.no_grad()
def test_a_layer_runs_sfm_before_cfm_and_either_may_be_left_out(maps):
    x, image_guidance, text_guidance = maps
    sfm, cfm = lively(SFM(**SIZES)).eval(), lively(CFM(**SIZES)).eval()
    assert torch.equal(
        ESCFLayer(sfm=sfm, cfm=cfm)(x, image_guidance, text_guidance), cfm(sfm(x, image_guidance), text_guidance)
    )
    assert torch.equal(ESCFLayer(sfm=None, cfm=cfm)(x, None, text_guidance), cfm(x, text_guidance))
    assert torch.equal(ESCFLayer(sfm=sfm, cfm=None)(x, image_guidance, None), sfm(x, image_guidance))
