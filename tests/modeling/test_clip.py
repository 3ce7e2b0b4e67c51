"""CLIP from open_clip: descriptions, weights, and texts of several prompts."""

import json

import open_clip
import pytest
import torch
from torch.nn import functional as F

from err_seg.modeling import clip as clip_module
from err_seg.modeling.clip import (
    CLIPConfigError,
    build_clip,
    build_tokenizer,
    clip_model_config,
    embed_prompts,
    encode_tokens,
    load_clip_weights,
    text_tower,
)
from tests.helpers.toy import TESTS, liven

TOY = str(TESTS / "helpers/toy_clip.json")


@pytest.fixture(scope="module")
def toy():
    clip = build_clip(TOY).eval()
    liven(clip)
    return clip


@torch.no_grad()
def test_prompts_are_averaged_as_unit_vectors(toy):
    tokens = build_tokenizer(TOY)(["a cat", "the very large cat on a sofa", "a dog", "sky", "blue", "x"])[:, :12]
    own = toy.encode_text(F.pad(tokens, (0, 65)))
    torch.testing.assert_close(encode_tokens(toy, tokens), own)
    assert own.norm(dim=1).std() > 1e-3
    unit = own / own.norm(dim=1, keepdim=True)
    torch.testing.assert_close(embed_prompts(toy, tokens.unsqueeze(1)), unit)

    prompts = tokens.view(2, 3, 12).clone()
    prompts[1, 2] = 0  # the second class has two
    expected = torch.stack([unit[:3].sum(dim=0), unit[3:5].sum(dim=0)])
    torch.testing.assert_close(embed_prompts(toy, prompts), expected / expected.norm(dim=1, keepdim=True))


def test_a_description_may_be_wrapped_and_is_a_copy(tmp_path):
    plain = json.loads((TESTS / "helpers/toy_clip.json").read_text())
    (tmp_path / "wrapped.json").write_text(json.dumps({"model_cfg": plain}))
    assert clip_model_config(str(tmp_path / "wrapped.json")) == clip_model_config(TOY) == plain
    clip_model_config("ViT-B-32")["text_cfg"]["width"] = 1
    assert clip_model_config("ViT-B-32")["text_cfg"]["width"] == 512


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no_such_clip", r"MODEL\.CLIP\.NAME: 'no_such_clip' is neither a model of open_clip"),
        ("nowhere/clip.json", r"MODEL\.CLIP\.NAME: cannot read 'nowhere/clip\.json'"),
    ],
)
def test_unknown_clips_are_refused(name, message):
    with pytest.raises(CLIPConfigError, match=message):
        clip_model_config(name)


def test_an_incomplete_description_is_refused(tmp_path):
    file = tmp_path / "clip.json"
    file.write_text(json.dumps({"embed_dim": 32, "vision_cfg": {}}))
    with pytest.raises(CLIPConfigError, match=r"clip\.json' is neither .* JSON file with embed_dim, vision_cfg"):
        clip_model_config(str(file))


def test_rates_reach_the_image_tower():
    clip = build_clip(TOY, drop_path=0.25, head_dropout=0.125)
    rates = [part.drop_prob for part in clip.visual.modules() if type(part).__name__ == "DropPath"]
    assert max(rates) == 0.25
    assert 0.125 in [part.p for part in clip.visual.modules() if isinstance(part, torch.nn.Dropout)]
    assert not [part for part in build_clip(TOY).visual.modules() if type(part).__name__ == "DropPath"]


def test_a_clip_starts_from_its_own_temperature(tmp_path):
    config = {**json.loads((TESTS / "helpers/toy_clip.json").read_text()), "init_logit_scale": 1.5, "quick_gelu": True}
    (tmp_path / "clip.json").write_text(json.dumps(config))
    clip = build_clip(str(tmp_path / "clip.json"))
    assert clip.logit_scale.item() == 1.5
    assert type(clip.transformer.resblocks[0].mlp.gelu).__name__ == "QuickGELU"
    assert text_tower(clip) is clip


def test_a_description_is_tokenized_as_the_clips_of_open_clip():
    prompts = ["a cat", "traffic light"]
    tokens = build_tokenizer(TOY)(prompts, 20)
    assert tokens.shape == (2, 20)
    assert torch.equal(tokens, build_tokenizer("ViT-B-32")(prompts, 20))


def test_weights_that_do_not_fit_are_refused(toy, tmp_path):
    state = toy.state_dict()
    broken = {
        "short.pt": ({**state, "positional_embedding": torch.zeros(50, 32)}, "reads 50 tokens of a text, the model 77"),
        "nan.pt": ({**state, "ln_final.bias": torch.full((32,), torch.nan)}, "NaN or infinity in .*ln_final.bias"),
        "less.pt": ({name: value for name, value in state.items() if name != "ln_final.bias"}, "ln_final.bias"),
    }
    for file, (weights, message) in broken.items():
        torch.save(weights, tmp_path / file)
        with pytest.raises(CLIPConfigError, match=rf"(?s){file} holds no weights of .*toy_clip\.json: .*{message}"):
            load_clip_weights(build_clip(TOY), TOY, str(tmp_path / file))
    (tmp_path / "odd.bin").write_bytes(b"\x08\0\0\0\0\0\0\0{}      ")
    with pytest.raises(CLIPConfigError, match=r"odd\.bin holds no weights"):
        load_clip_weights(build_clip(TOY), TOY, str(tmp_path / "odd.bin"))
    torch.save(state, tmp_path / "whole.pt")
    loaded = build_clip(TOY)
    load_clip_weights(loaded, TOY, str(tmp_path / "whole.pt"))
    torch.testing.assert_close(loaded.state_dict(), state, rtol=0, atol=0)
    untouched = build_clip(TOY)
    before = {name: value.clone() for name, value in untouched.state_dict().items()}
    load_clip_weights(untouched, TOY, "")
    torch.testing.assert_close(untouched.state_dict(), before, rtol=0, atol=0)


def test_a_tag_is_downloaded_or_says_what_to_fetch_by_hand(toy, tmp_path, monkeypatch):
    file, asked = tmp_path / "weights.pt", []
    torch.save(toy.state_dict(), file)
    monkeypatch.setattr(open_clip, "list_pretrained_tags_by_model", lambda name: ["laion2b_s34b_b79k"])

    def download(source):
        asked.append(source)
        return str(file)

    monkeypatch.setattr(open_clip, "download_pretrained", download)
    loaded = build_clip(TOY)
    load_clip_weights(loaded, "ViT-B-32", "laion2b_s34b_b79k")
    assert asked == [open_clip.get_pretrained_cfg("ViT-B-32", "laion2b_s34b_b79k")]
    torch.testing.assert_close(loaded.state_dict(), toy.state_dict(), rtol=0, atol=0)

    def fail(source):
        raise OSError("no network")

    monkeypatch.setattr(open_clip, "download_pretrained", fail)
    hub = r"could not download ViT-B-32 \(laion2b_s34b_b79k\): OSError: no network\n.* from "
    with pytest.raises(CLIPConfigError, match=hub + r"https://huggingface\.co/laion/\S+[^/] on another"):
        load_clip_weights(loaded, "ViT-B-32", "laion2b_s34b_b79k")
    monkeypatch.setattr(open_clip, "get_pretrained_cfg", lambda *_: {"url": "https://example.org/clip.pt"})
    with pytest.raises(CLIPConfigError, match=hub + r"https://example\.org/clip\.pt on another"):
        clip_module._download("ViT-B-32", "laion2b_s34b_b79k")
