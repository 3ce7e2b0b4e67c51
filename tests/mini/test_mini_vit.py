"""The tiny ViT CLIP: beside the ConvNeXt in size, words and use, with weights of its own."""

from dataclasses import replace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch.nn import functional as F

import err_seg
from err_seg.commands.mini import main
from err_seg.config import ConfigError
from err_seg.lab.mini import stages
from err_seg.lab.mini.pretraining import SETTINGS, PretrainingConfig, dense_encoder, pretrain, zero_shot_accuracy
from err_seg.mini import clip as mini
from err_seg.mini.crops import MiniCrops
from err_seg.mini.scenes import MiniScenes
from err_seg.mini.vocabulary import VOCABULARY
from err_seg.modeling.clip import CLIPConfigError, build_clip, build_tokenizer, load_clip_weights
from tests.helpers.toy import REPOSITORY

CONFIG = REPOSITORY / "configs/mini/err_seg_vit.yaml"
MEAN, STD = torch.tensor([123.675, 116.280, 103.530]).view(3, 1, 1), torch.tensor([58.395, 57.12, 57.375]).view(3, 1, 1)
NAMES = ("mini", "mini_vit")


@pytest.fixture(scope="module")
def packaged():
    """Return the CLIP with the weights that the package brings."""
    clip = build_clip("mini_vit")
    load_clip_weights(clip, "mini_vit", "mini_vit")
    return clip.eval()


def toy(**settings):
    sizes = {"crop_sides": (32,), "crop_batch": 60, "scene_sides": (32, 64), "scene_batch": 8}
    return PretrainingConfig(steps=2, crops=60, scenes=8, **sizes, **settings)


def test_both_clips_are_of_one_size_and_share_text_tower_and_words():
    convnext, vit = (build_clip(name) for name in NAMES)
    sizes = [sum(p.numel() for p in clip.parameters()) for clip in (convnext, vit)]
    assert 1.5e6 < sizes[0] < sizes[1] < 1.1 * sizes[0]
    assert convnext.transformer.state_dict().keys() == vit.transformer.state_dict().keys()
    assert build_tokenizer("mini_vit")(["red star"]).equal(build_tokenizer("mini")(["red star"]))
    assert vit.visual.patch_size == (16, 16)


@pytest.mark.parametrize("name", NAMES)
def test_a_name_brings_weights_of_its_own_alone(name, packaged):
    with safe_open(mini.CLIPS[name].weights, "pt") as file:
        facts = file.metadata()
    assert {tensor.dtype for tensor in load_file(mini.CLIPS[name].weights).values()} == {torch.float16}
    assert facts["pretraining"] == repr(SETTINGS[name])
    assert mini.CLIPS[name].weights.stat().st_size < 4e6
    other = NAMES[1 - NAMES.index(name)]
    with pytest.raises(CLIPConfigError, match=f"'{other}' is no file and no tag of {name}; .*a tag: {name}$"):
        load_clip_weights(build_clip(name), name, other)


def test_the_packaged_weights_know_the_classes(packaged):
    accuracy = zero_shot_accuracy(packaged, MiniCrops("test", 120, seed=5, size=96), MEAN, STD)
    assert accuracy["objects"] > 0.8
    assert accuracy["walls"] > 0.8


@torch.no_grad()
def test_dense_embeddings_tell_places_apart(packaged):
    scenes = MiniScenes("test", size=192, length=8, seed=5)
    text = F.normalize(packaged.encode_text(mini.tokenizer()([f"a {name}" for name in VOCABULARY])), dim=1)
    right = []
    for i in range(len(scenes)):
        image = (torch.from_numpy(scenes[i].image).permute(2, 0, 1).float() - MEAN) / STD
        (embeddings,) = dense_encoder(packaged)(image[None]).embeddings
        assert embeddings.shape == (1, 128, 12, 12)
        predicted = torch.einsum("dhw,td->thw", embeddings[0], text).argmax(0)
        right.append((predicted == torch.from_numpy(scenes[i].label)[8::16, 8::16]).float().mean())
    assert torch.stack(right).mean() > 0.4


@pytest.mark.parametrize("size", [96, 192])
def test_err_seg_is_built_on_it(size, packaged):
    model = err_seg.build_model(err_seg.get_cfg(CONFIG, ["MODEL.DEVICE", "cpu", "INPUT.SIZE", size])).eval()
    assert model.encoder.clip.visual.proj.equal(packaged.visual.proj)
    assert model.encoder.embedding_dim == packaged.encode_image(torch.zeros(1, 3, 96, 96)).shape[1]
    (result,) = model.predict([MiniScenes("test", size=130, length=1)[0].image], VOCABULARY, num_kept=12)
    assert result.labels.shape == (130, 130)
    assert result.labels.unique().numel() > 1


def test_a_vit_has_no_features_for_hsm():
    with pytest.raises(ConfigError, match=r"MODEL\.HSM\.ENABLED must be False with mini_vit"):
        err_seg.build_model(err_seg.get_cfg(CONFIG, ["MODEL.DEVICE", "cpu", "MODEL.HSM.ENABLED", True]))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("scene_share", [0.0, 1.0])
def test_pre_training_teaches_every_weight(name, scene_share):
    config = toy(scene_share=scene_share)
    still = replace(config, muon_lr=0.0, adam_lr=0.0)
    before, after = (pretrain(name, settings, MEAN, STD).state_dict() for settings in (still, config))
    assert after.keys() == build_clip(name).state_dict().keys()
    assert all(tensor.isfinite().all() for tensor in after.values())
    fixed = ["visual.positional_embedding"] if name == "mini_vit" else []
    assert [key for key in after if after[key].equal(before[key])] == fixed


def test_the_command_pre_trains_the_clip_of_the_configuration(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(stages.SETTINGS, "mini_vit", toy())
    options = ["--config-file", str(CONFIG), "--output", str(tmp_path), "MODEL.CLIP.PRETRAINED", ""]
    assert main(["pretrain", *options]) == 0
    assert "zero-shot accuracy" in capsys.readouterr().out
    load_clip_weights(build_clip("mini_vit"), "mini_vit", str(tmp_path / "clip.safetensors"))
    with pytest.raises(CLIPConfigError, match="holds no weights of mini:"):
        load_clip_weights(build_clip("mini"), "mini", str(tmp_path / "clip.safetensors"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--package"], "--package: of mini_vit the package brings CLIP alone"),
        (["evaluate"], "train first"),
        (["pretrain", "MODEL.CLIP.NAME", "RN50"], "mini_fastvit, mini_large can be pre-trained here, not 'RN50'"),
    ],
)
def test_what_the_package_has_no_room_for_is_refused(tmp_path, capsys, arguments, message):
    step, *rest = arguments
    options = ["--config-file", str(CONFIG), "--output", str(tmp_path), "--scenes", "1", "1", "1"]
    assert main([step, *options, *rest]) == 1
    assert message in capsys.readouterr().err


def test_the_package_lists_its_weights():
    tomllib = pytest.importorskip("tomllib")  # from Python 3.11 on
    listed = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["err_seg"]
    files = {file for pattern in listed for file in (REPOSITORY / "err_seg").glob(pattern)}
    assert {clip.weights.name for clip in mini.CLIPS.values()} <= {file.name for file in files}
