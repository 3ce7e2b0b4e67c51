"""ViT-CLIP read densely, against open_clip's own transformer."""

import json
import re

import pytest
import torch
from torch.nn import functional as F

from err_seg.modeling.clip import build_clip
from err_seg.modeling.encoder import GUIDANCE_BOUND, FeatureMap
from err_seg.modeling.vit import ViTEncoder
from err_seg.models.build import encoder_of
from tests.helpers.toy import TESTS, liven

GRID = (4, 4)  # of the toy CLIP, whose images are 64×64


@pytest.fixture
def encoder(tmp_path):
    """A toy ViT with layer scales, in which every parameter counts."""
    config = json.loads((TESTS / "helpers/toy_vit.json").read_text())
    config["vision_cfg"].update(layers=3, ls_init_value=0.5)
    (tmp_path / "clip.json").write_text(json.dumps(config))
    clip = build_clip(str(tmp_path / "clip.json")).eval()
    liven(clip)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in clip.visual.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return ViTEncoder(clip)


@torch.no_grad()
def test_in_the_last_block_a_token_attends_to_itself_alone(encoder):
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    visual = encoder.clip.visual
    *blocks, last = visual.transformer.resblocks
    tokens = visual._embeds(images)
    for block in blocks:
        tokens = block(tokens)
    others = torch.full((17, 17), -torch.inf).fill_diagonal_(0)
    tokens = last(tokens, attn_mask=others)[:, 1:]
    embeddings = visual.ln_post(tokens) @ visual.proj

    features = encoder(images)
    assert [len(maps) for maps in features] == [1, 1, 0]
    for maps, expected in ((features.embeddings[0], embeddings), (features.deep[0], tokens.clamp(-16, 16))):
        torch.testing.assert_close(maps, expected.transpose(1, 2).unflatten(2, GRID), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_guidance_is_bounded(encoder):
    encoder.clip.visual.transformer.resblocks[-1].mlp.c_proj.bias[0] += 1000
    encoder.clip.visual.transformer.resblocks[-1].mlp.c_proj.bias[1] -= 1000
    deep = encoder(torch.randn(1, 3, 64, 64)).deep[0]
    assert (deep[:, 0] == GUIDANCE_BOUND).all()
    assert (deep[:, 1] == -GUIDANCE_BOUND).all()


@torch.no_grad()
def test_maps_are_as_declared_on_any_grid(encoder):
    assert encoder.maps.embeddings == (FeatureMap("e16", 32, 16),)
    assert encoder.maps.deep == (FeatureMap("f4", 32, 16),)
    assert encoder.maps.shallow == ()
    for maps in encoder(torch.randn(2, 3, 96, 64))[:2]:
        assert [map_.shape for map_ in maps] == [(2, 32, 6, 4)]


@torch.no_grad()
def test_positions_are_resized_as_a_map(encoder):
    own = encoder.clip.visual.positional_embedding
    assert torch.equal(encoder.positions(torch.Size(GRID)), own)
    positions = encoder.positions(torch.Size((6, 3)))
    assert torch.equal(positions[0], own[0])
    maps = F.interpolate(own[1:].view(1, *GRID, 32).permute(0, 3, 1, 2), (6, 3), mode="bicubic")
    for row in range(6):
        for column in range(3):
            torch.testing.assert_close(positions[1 + 3 * row + column], maps[0, :, row, column])


def test_which_image_towers_are_read():
    with torch.device("meta"):
        resnet = build_clip("RN50")
    assert encoder_of(build_clip(str(TESTS / "helpers/toy_vit.json"))) is ViTEncoder
    assert encoder_of(resnet) is None


def test_blocks_and_what_trains(encoder):
    blocks = list(encoder.clip.visual.transformer.resblocks)
    assert encoder.image_blocks() == blocks[:2]  # the last one is run in pieces
    encoder.set_trainable(image="weight", text="none", hsm_conv=False)
    trained = {name for name, parameter in encoder.named_parameters() if parameter.requires_grad}
    assert {re.sub(r"\.\d\.", ".", name) for name in trained} == {
        f"clip.visual.transformer.resblocks.{kind}" for kind in ("attn.in_proj_weight", "mlp.c_fc.weight")
    }
    assert not encoder.trains_text
    encoder.set_trainable(image="none", text="full", hsm_conv=True)
    trained = {name for name, parameter in encoder.named_parameters() if parameter.requires_grad}
    others = {name for name, _ in encoder.named_parameters() if not name.startswith("clip.visual.")}
    assert trained == others - {"clip.logit_scale"}
    assert encoder.trains_text
