"""FastViT-CLIP read densely, and CLIPs whose text tower is a module of its own."""

import json

import pytest
import torch
from torch import nn

from err_seg.modeling.clip import CLIPConfigError, build_clip, build_tokenizer, encode_tokens, load_clip_weights
from err_seg.modeling.convnext import ConvNeXtEncoder
from err_seg.modeling.fastvit import FastViTEncoder
from err_seg.models.build import encoder_of
from tests.helpers.toy import TESTS

TOY_FASTVIT = str(TESTS / "helpers/toy_fastvit.json")
FOUR_STAGES = ("MobileCLIP2-S0", "MobileCLIP2-S2", "MobileCLIP-S1", "MobileCLIP-S2")
FIVE_STAGES = ("MobileCLIP2-S3", "MobileCLIP2-S4")


def build_on_meta(name):
    with torch.device("meta"):
        return build_clip(name)


def random_clip(name):
    """Build a CLIP, statistics of its batch norms included, in which no signal vanishes; faster than its own start."""
    clip = build_on_meta(name).to_empty(device="cpu").eval()
    generator = torch.Generator().manual_seed(0)
    for key, tensor in clip.state_dict().items():
        noise = torch.randn(tensor.shape, generator=generator)
        if key.endswith("gamma"):
            tensor.fill_(0.1)
        elif tensor.dim() > 1:
            tensor.copy_(noise / tensor[0].numel() ** 0.5)
        else:
            tensor.copy_(1 + 0.1 * noise if key.endswith(("weight", "var")) else 0.1 * noise)
    return clip


@pytest.mark.parametrize("name", ["MobileCLIP2-S0", "MobileCLIP2-S2", "MobileCLIP2-S3"])
@torch.no_grad()
def test_dense_embeddings_and_text_are_open_clips_own(name):
    clip = random_clip(name)
    encoder = FastViTEncoder(clip).eval()
    images = torch.randn(2, 3, 128, 192, generator=torch.Generator().manual_seed(1))
    features = encoder(images)
    own = clip.encode_image(images)
    mean = features.embeddings[-1].mean(dim=(2, 3))
    torch.testing.assert_close(mean / own.std(), own / own.std(), rtol=1e-4, atol=1e-5)
    for maps, described in zip(features, encoder.maps, strict=True):
        for map_, (_, channels, stride) in zip(maps, described, strict=True):
            assert map_.shape == (2, channels, 128 // stride, 192 // stride)

    tokens = build_tokenizer(name)(["a cat in the scene", "traffic light", "x"])
    length = int(tokens.argmax(dim=1).max()) + 1
    torch.testing.assert_close(encode_tokens(clip, tokens[:, :length]), clip.encode_text(tokens))
    clip.text.attn_mask = clip.text.build_causal_mask()  # what a tower would give that does not see what is behind
    assert (encode_tokens(clip, tokens[:, :length]) - clip.encode_text(tokens)).abs().max() < 1e-4


@pytest.mark.parametrize("name", [*FOUR_STAGES, *FIVE_STAGES])
def test_every_fastvit_of_open_clip_is_read(name):
    clip = build_on_meta(name)
    assert encoder_of(clip) is FastViTEncoder
    encoder = FastViTEncoder(clip)
    strides = {kind: [map_.stride for map_ in maps] for kind, maps in encoder.maps._asdict().items()}
    names = [map_.name for map_ in encoder.maps.embeddings]
    assert names == (["e16", "e32"] if name in FOUR_STAGES else ["e32", "e64"])
    assert strides == {
        "embeddings": [16, 32] if name in FOUR_STAGES else [32, 64],
        "deep": [32, 16],
        "shallow": [16, 8, 4],
    }


def test_the_largest_convnext_is_read():
    clip = build_on_meta("convnext_xxlarge")
    assert encoder_of(clip) is ConvNeXtEncoder
    with torch.device("meta"):
        encoder = ConvNeXtEncoder(clip)
    assert encoder.embedding_dim == 1024
    assert encoder.hsm.norm.eps == 1e-5
    assert [map_.channels for map_ in encoder.maps.shallow] == [1536, 768, 384]


@torch.no_grad()
def test_the_second_branch_is_stage_4_s_downsampling_at_every_pixel():
    encoder = FastViTEncoder(random_clip(TOY_FASTVIT)).eval()
    own = encoder.clip.visual.trunk.stages[3].downsample
    f3 = torch.randn(1, 128, 12, 10)
    for name in ("large_conv", "small_conv"):
        dense, sparse = getattr(encoder.hsm.proj[0], name)(f3), getattr(own.proj[0], name)(f3)
        torch.testing.assert_close(dense[:, :, ::2, ::2], sparse)
    assert encoder.hsm(f3).shape == (1, 256, 12, 10)


def test_batch_norms_keep_their_statistics_in_training(toy_model):
    """What an image gives in training does not depend on its batch, and is what it gives in evaluation."""
    model = toy_model("MODEL.CLIP.NAME", TOY_FASTVIT)
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    images = torch.randn(3, 3, 64, 64)
    expected = model.encoder.eval()(images[:1]).embeddings[0]
    assert model.encoder.train() is model.encoder
    assert model.encoder.training
    model.train()
    assert len(norms) > 30
    assert not any(module.training for module in norms)
    torch.testing.assert_close(model.encoder(images).embeddings[0][:1], expected)
    for name, buffer in model.named_buffers():
        assert torch.equal(buffer, before[name]), name


def test_what_weight_tuning_trains():
    encoder = FastViTEncoder(build_on_meta("MobileCLIP2-S0"))
    encoder.set_trainable(image="weight", text="weight", hsm_conv=False)
    trained = {name for name, parameter in encoder.named_parameters() if parameter.requires_grad}
    blocks = {name for name in trained if ".blocks." in name}
    text = {name for name in trained if name.startswith("clip.text.transformer.resblocks.")}
    assert blocks | text == trained
    leaves = {name.split(".blocks.")[1].split(".", 1)[1] for name in blocks}
    assert leaves == {
        *("layer_scale.gamma", "layer_scale_1.gamma", "layer_scale_2.gamma", "token_mixer.layer_scale.gamma"),
        *("mlp.conv.conv.weight", "mlp.fc1.weight", "mlp.fc2.weight"),
        *("token_mixer.mixer.conv_kxk.0.conv.weight", "token_mixer.mixer.conv_scale.conv.weight"),
        "token_mixer.qkv.weight",
    }
    assert {name.split(".", 5)[5] for name in text} == {"attn.in_proj_weight", "mlp.c_fc.weight"}
    assert encoder.trains_text
    encoder.set_trainable(image="none", text="none", hsm_conv=True)
    assert {n.split(".")[0] for n, p in encoder.named_parameters() if p.requires_grad} == {"hsm"}


def test_weights_of_a_text_tower_of_its_own_are_loaded_strictly(tmp_path):
    clip, file = random_clip(TOY_FASTVIT), tmp_path / "clip.pt"
    torch.save(clip.state_dict(), file)
    other = build_clip(TOY_FASTVIT)
    load_clip_weights(other, TOY_FASTVIT, str(file))
    assert all(torch.equal(tensor, clip.state_dict()[name]) for name, tensor in other.state_dict().items())
    with pytest.raises(CLIPConfigError, match="holds no weights of mini: "):
        load_clip_weights(build_clip("mini"), "mini", str(file))
    with pytest.raises(CLIPConfigError, match=r"no tag of MobileCLIP2-S0; .*a tag: dfndr2b$"):
        load_clip_weights(build_on_meta("MobileCLIP2-S0"), "MobileCLIP2-S0", "openai")


@pytest.mark.parametrize("setting", [{"hf_model_name": "roberta-base"}, {"pool_type": "last"}, {"embed_cls": True}])
def test_text_towers_that_are_read_elsewhere_are_refused(setting, tmp_path):
    config = json.loads((TESTS / "helpers/toy_fastvit.json").read_text())
    config["text_cfg"].update(setting)
    (tmp_path / "clip.json").write_text(json.dumps(config))
    with pytest.raises(CLIPConfigError, match=r"MODEL\.CLIP\.NAME: the text tower of .*clip\.json"):
        build_clip(str(tmp_path / "clip.json"))


@pytest.mark.parametrize("name", ["MobileCLIP2-S0", "MobileCLIP2-S3", TOY_FASTVIT])
def test_inference_has_the_training_branches_fused(name):
    encoder = FastViTEncoder(random_clip(name)).eval()
    entries, images = list(encoder.state_dict()), torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(1))
    branches = [map_ for maps in encoder(images) for map_ in maps]
    with torch.no_grad():
        found = [map_ for maps in encoder(images) for map_ in maps]
    for one, expected in zip(found, branches, strict=True):
        assert (one - expected).abs().max() < 1e-4 * expected.abs().max()
    assert list(encoder.state_dict()) == entries
    assert not any("large_conv" in key or "conv_kxk" in key for key in encoder.fused().state_dict())
    assert sum(p.numel() for p in encoder.fused().parameters()) < sum(p.numel() for p in encoder.parameters())


@torch.no_grad()
def test_fused_branches_follow_the_weights():
    encoder = FastViTEncoder(random_clip(TOY_FASTVIT)).eval()
    images, calls = torch.randn(1, 3, 64, 64), []
    encoder.register_forward_hook(lambda *_: calls.append(1))
    state = torch.get_rng_state()
    before = encoder(images).embeddings[0]
    assert torch.equal(torch.get_rng_state(), state), "or a resumed training would go on otherwise"
    fused = encoder.fused()
    assert encoder.fused() is fused.fused() is fused, "made once"
    encoder.clip.visual.trunk.stages[0].blocks[0].mlp.fc1.weight.mul_(2)
    assert encoder.fused() is not fused
    changed = encoder(images).embeddings[0]
    assert not torch.allclose(before, changed)
    with torch.enable_grad():
        torch.testing.assert_close(encoder(images).embeddings[0], changed, rtol=1e-4, atol=1e-4)
    assert len(calls) == 3, "hooks are called once"
    encoder.train()
    assert encoder(images) is not None


def test_a_compiled_fastvit_is_fused_and_follows_the_weights(toy_model, images):
    model = toy_model("MODEL.CLIP.NAME", TOY_FASTVIT).eval()
    expected = model.predict(images[:1], ["cat", "dog"])[0].probabilities
    model.compile(backend="eager")
    assert model.is_compiled
    assert model.encoder.fused()._compiled_call_impl is not None
    torch.testing.assert_close(model.predict(images[:1], ["cat", "dog"])[0].probabilities, expected)


def test_an_evaluation_does_not_freeze_what_is_trained():
    encoder = FastViTEncoder(random_clip(TOY_FASTVIT))
    encoder.set_trainable(image="full", text="weight", hsm_conv=True)
    trained = {name for name, parameter in encoder.named_parameters() if parameter.requires_grad}
    with torch.no_grad():
        encoder.eval()(torch.randn(1, 3, 64, 64))
    assert {name for name, parameter in encoder.train().named_parameters() if parameter.requires_grad} == trained
    sum(maps.mean() for maps in encoder(torch.randn(1, 3, 64, 64)).embeddings).backward()
    assert encoder.clip.visual.trunk.stages[0].blocks[0].mlp.fc1.weight.grad is not None


def test_sharded_weights_are_not_fused(monkeypatch):
    encoder = FastViTEncoder(random_clip(TOY_FASTVIT)).eval()
    monkeypatch.setattr("err_seg.modeling.fastvit.is_plain", lambda parameter: False)
    monkeypatch.setattr(FastViTEncoder, "fused", None)
    with torch.no_grad():
        assert encoder(torch.randn(1, 3, 64, 64)).embeddings


def test_weights_of_a_fused_optimizer_are_followed(toy_model):
    """Such an optimizer writes without changing a tensor's version."""
    model = toy_model("MODEL.CLIP.NAME", TOY_FASTVIT).eval()
    encoder, images = model.encoder, torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        before, digest = encoder(images).embeddings[0], model.digest
    encoder.requires_grad_(True)
    optimizer = torch.optim.AdamW(encoder.clip.visual.parameters(), lr=0.1, fused=True)
    model.train()
    encoder(images).embeddings[0].mean().backward()
    optimizer.step()
    model.eval()
    with torch.no_grad():
        after = encoder(images).embeddings[0]
    torch.testing.assert_close(after, encoder(images).embeddings[0], rtol=1e-3, atol=1e-3)
    assert not torch.allclose(after, before)
    assert model.digest != digest
