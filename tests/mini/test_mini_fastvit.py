"""The tiny FastViT CLIP: beside the ConvNeXt in size, words and use."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn

import err_seg
from err_seg.commands.mini import main
from err_seg.engine import train
from err_seg.lab.mini import stages
from err_seg.lab.mini.pretraining import (
    SETTINGS,
    PretrainingConfig,
    as_matrix,
    build_optimizers,
    pretrain,
    zero_shot_accuracy,
)
from err_seg.mini import clip as mini
from err_seg.mini.crops import MiniCrops
from err_seg.mini.scenes import MiniScenes
from err_seg.mini.vocabulary import VOCABULARY
from err_seg.modeling.clip import build_clip, load_clip_weights
from err_seg.modeling.fastvit import FastViTEncoder
from tests.helpers.toy import REPOSITORY

NAME = "mini_fastvit"
CONFIG = REPOSITORY / "configs/mini/err_seg_fastvit.yaml"
MODEL = err_seg.get_cfg().MODEL
MEAN, STD = (torch.tensor(values).view(3, 1, 1) for values in (MODEL.PIXEL_MEAN, MODEL.PIXEL_STD))
TOY = PretrainingConfig(
    steps=2, crops=60, scenes=8, crop_sides=(32,), crop_batch=60, scene_sides=(32, 64), scene_batch=8
)


def test_it_is_of_the_size_of_the_others_and_shares_their_text_tower():
    convnext, fastvit = build_clip("mini"), build_clip(NAME)
    sizes = [sum(p.numel() for p in clip.parameters()) for clip in (convnext, fastvit)]
    assert sizes[0] < sizes[1] < 1.1 * sizes[0]
    assert convnext.transformer.state_dict().keys() == fastvit.transformer.state_dict().keys()
    channels = [[info["num_chs"] for info in clip.visual.trunk.feature_info] for clip in (convnext, fastvit)]
    assert channels[0] == channels[1]


@pytest.mark.parametrize("scene_share", [0.0, 1.0])
def test_pre_training_teaches_every_weight(scene_share):
    config = replace(TOY, scene_share=scene_share)
    still = replace(config, muon_lr=0.0, adam_lr=0.0)
    before, after = (pretrain(NAME, settings, MEAN, STD).state_dict() for settings in (still, config))
    assert after.keys() == build_clip(NAME).state_dict().keys()
    assert all(tensor.isfinite().all() for tensor in after.values())
    equal = [key for key in after if after[key].equal(before[key])]
    assert [key for key in equal if not key.endswith("num_batches_tracked")] == []
    assert {after[key].item() for key in equal} == {2}


def test_a_convolution_of_one_pixel_is_trained_as_a_matrix():
    conv = nn.Conv2d(3, 4, 1)
    matrix = as_matrix(conv.weight)
    images = torch.randn(2, 3, 5, 5)
    expected = torch.autograd.grad(conv(images).square().sum(), conv.weight)[0]
    conv(images).square().sum().backward()
    torch.testing.assert_close(matrix.grad, expected[:, :, 0, 0])
    assert conv.weight.grad is None
    torch.optim.SGD([matrix], lr=0.5).step()
    torch.testing.assert_close(conv.weight[:, :, 0, 0], matrix)

    muon, _ = build_optimizers(build_clip(NAME), SETTINGS[NAME])
    shapes = {tuple(parameter.shape) for group in muon.param_groups for parameter in group["params"]}
    assert {(768, 256), (256, 768), (384, 128), (128, 384)} <= shapes  # MLPs of stages 4 and 3, and of the text tower
    assert not any(1 in shape for shape in shapes)


def test_it_is_pre_trained_by_the_command_and_err_seg_trains_on_it(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(stages.SETTINGS, NAME, TOY)
    options = ["--config-file", str(CONFIG), "--output", str(tmp_path), "MODEL.CLIP.PRETRAINED", ""]
    assert main(["pretrain", *options]) == 0
    assert "zero-shot accuracy" in capsys.readouterr().out
    file = tmp_path / "clip.safetensors"
    assert file.stat().st_size < 4e6
    assert {t.dtype for n, t in load_file(file).items() if "num_batches" not in n} == {torch.float16}
    small = ("INPUT.SIZE", 64, "INPUT.CROP_SIZE", 64, "INPUT.MIN_SIZE_TRAIN", [64], "LOG.TENSORBOARD", False)
    own = ("MODEL.DEVICE", "cpu", "MODEL.CLIP.PRETRAINED", str(file), "OUTPUT_DIR", str(tmp_path / "out"))
    root = ("DATASETS.ROOT", str(tmp_path), "DATASETS.TRAIN", ["mini_world_train_3"], "SOLVER.IMS_PER_BATCH", 2)
    cfg = err_seg.get_cfg(CONFIG, [*small, *own, *root, "SOLVER.MAX_ITER", 2])
    model = err_seg.build_model(cfg)
    assert isinstance(model.encoder, FastViTEncoder)
    assert [map_.stride for map_ in model.encoder.maps.embeddings] == [16, 32]
    train(cfg, model)
    for name, tensor in load_file(file).items():  # frozen, its statistics as well
        assert torch.equal(tensor.float(), model.state_dict()[f"encoder.clip.{name}"].float()), name
    (result,) = model.predict([MiniScenes("test", size=130, length=1)[0].image], VOCABULARY, num_kept=12)
    assert result.labels.shape == (130, 130)


def test_the_packaged_weights_know_the_classes():
    clip = build_clip(NAME)
    load_clip_weights(clip, NAME, NAME)
    with safe_open(mini.CLIPS[NAME].weights, "pt") as file:
        assert json.loads(file.metadata()["pretraining"]) == repr(SETTINGS[NAME])
    assert mini.CLIPS[NAME].weights.stat().st_size < 4e6
    accuracy = zero_shot_accuracy(clip.eval(), MiniCrops("test", 120, seed=5, size=96), MEAN, STD)
    assert accuracy["objects"] > 0.8
    assert accuracy["walls"] > 0.8
