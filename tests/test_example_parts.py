"""What each part of examples/plugins computes, at toy size."""

import re
from functools import partial
from importlib import import_module
from types import SimpleNamespace

import pytest
import timm
import torch

import err_seg
from err_seg import plugins
from err_seg.config import ConfigError
from err_seg.engine.step import LossInputs
from err_seg.modeling.crm import NOT_KEPT
from err_seg.modeling.encoder import GUIDANCE_BOUND
from err_seg.prediction.attention import record_attention
from tests.helpers.plugins import EXAMPLES
from tests.helpers.toy import TESTS, TOY, VOCABULARY, liven
from tests.helpers.training import metrics, run


def test_dice_of_a_perfect_prediction_is_1(example):
    example("dice_metric")
    err_seg.get_cfg(EXAMPLES / "dice_metric/train.yaml")
    metric = plugins.METRICS.get("dice")
    confusion = torch.tensor([[3, 1, 0], [1, 3, 0], [2, 0, 0]]).numpy()
    # classes 0 and 1 have 6 and 4 pixels, predicted are 4 and 4; class 2 is in no label map
    assert metric(confusion, "abc") == {"mDice": pytest.approx(100 * (6 / 10 + 6 / 8) / 2)}
    assert metric(torch.eye(3).long().numpy(), "abc") == {"mDice": 100}
    assert metric(torch.zeros(3, 3).long().numpy(), "abc")["mDice"] != 0


def test_dice_loss_follows_the_kept_classes_and_leaves_out_what_is_ignored(example):
    example("dice_loss")
    cfg = err_seg.get_cfg(EXAMPLES / "dice_loss/train.yaml", ["EXTRA.DICE_LOSS.SMOOTHING", "1e-6"])
    term = plugins.LOSS_TERMS.get("dice")(cfg)
    labels = torch.full((1, 8, 8), 255)
    labels[:, :4], labels[:, 4:, :4] = 2, 5
    kept = torch.tensor([[2, 5, NOT_KEPT]])
    perfect = torch.full((1, 3, 2, 2), -20.0)
    perfect[0, 0, 0], perfect[0, 1, 1, 0] = 20, 20

    def loss(logits):
        return term(LossInputs(torch.zeros(1, 3, 8, 8), labels, logits, kept, 7))

    assert loss(perfect) == pytest.approx(0, abs=1e-5)
    ignored = perfect.clone()
    ignored[..., 1, 1] = 20  # what is predicted there, and in a padded row, counts nowhere
    ignored[:, 2] = 20
    assert loss(ignored) == pytest.approx(0, abs=1e-5)
    swapped = perfect[:, [1, 0, 2]].requires_grad_()
    assert loss(swapped).item() == pytest.approx(1, abs=1e-5)
    loss(swapped * 0.1).backward()
    assert swapped.grad[0, 0, 0].max() < 0 < swapped.grad[0, 1, 0].min()
    labels[:] = 255
    assert loss(perfect) == 0


def test_cutout_paints_image_and_labels_alike(example):
    example("cutout")
    file = EXAMPLES / "cutout/train.yaml"
    transform = plugins.TRANSFORMS.get("cutout")(err_seg.get_cfg(file, ["EXTRA.CUTOUT.PROB", 1]))
    image, label = torch.full((3, 40, 40), 7, dtype=torch.uint8), torch.ones(40, 40).long()
    places = set()
    for seed in range(200):
        pixels, target = transform(image, label, torch.Generator().manual_seed(seed))
        hole = target == 255
        rows, columns = hole.any(dim=1).nonzero()[:, 0], hole.any(dim=0).nonzero()[:, 0]
        assert (len(rows), len(columns), int(hole.sum())) == (10, 10, 100)
        assert torch.equal(pixels == 128, hole.expand(3, -1, -1))
        places |= {(int(rows[0]), int(columns[0]))}
    assert image.unique() == 7, "the image that is read is left as it was"
    assert min(map(min, places)) == 0
    assert max(map(max, places)) == 30
    rare = plugins.TRANSFORMS.get("cutout")(err_seg.get_cfg(file, ["EXTRA.CUTOUT.PROB", 0.25]))
    draws = [rare(image, label, torch.Generator().manual_seed(seed))[1].max() == 255 for seed in range(400)]
    assert 60 < sum(draws) < 140


def test_resnet_declares_what_it_gives(example, toy_cfg):
    own = example("resnet_backbone")
    model = err_seg.build_model(toy_cfg(*own))
    features = model.encoder(torch.zeros(1, 3, 64, 64))
    for maps, tensors in zip(model.encoder.maps, features, strict=True):
        for known, tensor in zip(maps, tensors, strict=True):
            assert tensor.shape == (1, known.channels, 64 // known.stride, 64 // known.stride), known.name
    model.encoder.set_trainable(image="weight", text="none", hsm_conv=False)
    trained = [name for name, parameter in model.encoder.named_parameters() if parameter.requires_grad]
    assert len(trained) == 3 + 4 * 3, "the stem's convolutions and those of the four blocks"
    for setting, sentence in (
        (("MODEL.HSM.ENABLED", True), r"MODEL\.HSM\.ENABLED must be False"),
        (("MODEL.GUD.GUIDANCE_DIMS", [8, 4, 4]), r"MODEL\.GUD\.GUIDANCE_DIMS must be \[0, 0, 0\]"),
        (("MODEL.CLIP.NAME", dict(zip(TOY[::2], TOY[1::2], strict=True))["MODEL.CLIP.NAME"]), "is no ResNet"),
    ):
        with pytest.raises(ConfigError, match=sentence):
            err_seg.build_model(toy_cfg(*own, *setting))


def test_parallel_modules_read_the_same_input(example, toy_cfg, images):
    own = example("parallel_aggregation")
    model = err_seg.build_model(toy_cfg(*own, "EXTRA.PARALLEL.MERGE", "gate"))
    published = err_seg.build_model(toy_cfg())
    layers, theirs = model.head.escf.layers, published.head.escf.layers
    assert model.head.blocks() == list(layers)
    assert torch.equal(layers[1].cfm.mlp.fc1.weight, theirs[1].cfm.mlp.fc1.weight), "equal at the same seed"
    x, image, text = torch.randn(2, 3, 4, 4, 16), torch.randn(2, 4, 4, 8), torch.randn(2, 3, 8)
    layer = layers[1].eval()
    expected = layer.sfm(x, image) + layer.cfm(x, text) - x
    torch.testing.assert_close(layer(x, image, text), expected)
    assert not torch.allclose(expected, theirs[1].eval()(x, image, text), atol=1e-5)
    attention = record_attention(model, images[0], VOCABULARY)
    assert len(attention.spatial) == len(attention.category) == len(layers)
    for setting in (("MODEL.ESCF.CFM", False), ("MODEL.COST_EMBEDDING.DIM", 18, "MODEL.ESCF.NUM_HEADS", 2)):
        with pytest.raises(ConfigError, match=f"{setting[0].rsplit('.', 1)[1]} must be"):
            err_seg.build_model(toy_cfg(*own, *setting))


def test_experts_are_weighted_at_every_pixel(example, toy_cfg):
    model = err_seg.build_model(toy_cfg(*example("parallel_aggregation")))
    liven(model)
    merge = model.head.escf.layers[0].merge
    spatial, category = torch.randn(2, 2, 3, 4, 4, 16).unbind(0)
    before = merge(spatial, category)
    assert before.shape == spatial.shape
    with torch.no_grad():
        for expert in merge.experts[1:]:
            expert.load_state_dict(merge.experts[0].state_dict())
        alike = merge(spatial, category)
        merge.weights[2].bias += torch.tensor([5.0, 0, -3, 1])
    assert not torch.allclose(alike, before, atol=1e-4)
    torch.testing.assert_close(merge(spatial, category), alike, msg="weights of equal experts sum to 1")


@pytest.mark.parametrize("name", ["test_convnext", "test_resnet", "test_vit", "test_vit with patches of 14"])
def test_second_encoder_is_frozen_and_guides(name, example, toy_cfg, monkeypatch):
    name, _, of_14 = name.partition(" ")
    own = (*example("second_encoder"), "EXTRA.SECOND_ENCODER.NAME", name)
    if of_14:  # S is no multiple of it
        second_encoder = import_module("second_encoder")
        monkeypatch.setattr(second_encoder, "timm", SimpleNamespace(**vars(timm)))
        monkeypatch.setattr(second_encoder.timm, "create_model", partial(timm.create_model, patch_size=14))
    model = err_seg.build_model(toy_cfg(*own, "MODEL.CLIP.IMAGE_TUNING", "full", "MODEL.CLIP.TEXT_TUNING", "full"))
    second = model.encoder.second
    model.train()
    assert model.encoder.first.training
    assert not any(module.training for module in second.modules())
    assert not any(parameter.requires_grad for parameter in second.parameters())
    assert model.encoder.trains_text
    liven(second)
    images = torch.randn(2, 3, 64, 64)
    state = {key: value.clone() for key, value in second.state_dict().items()}
    features = model.encoder(images)
    expected = model.encoder.first(images)
    guidance, *deep = features.deep
    for mine, theirs in zip(features._replace(deep=tuple(deep)), expected, strict=True):
        assert all(map(torch.equal, mine, theirs))
    assert guidance.shape == (2, second.channels, *[round(64 / second.stride)] * 2)
    assert guidance.abs().max() <= GUIDANCE_BOUND
    assert not guidance.requires_grad
    model.head(features, torch.randn(7, 32)).logits.mean().backward()
    projection = model.head.escf.image_guidance.projections[0][0]
    assert projection.in_channels == second.channels
    assert projection.weight.grad.abs().max() > 0
    assert all(torch.equal(value, state[key]) for key, value in second.state_dict().items())
    assert any(key.startswith("encoder.second.model.") for key in model.state_dict())


@pytest.mark.parametrize("clip", ["toy_vit.json", "toy_fastvit.json"])
def test_second_encoder_serves_any_clip(clip, example, toy_cfg, images):
    own = (*example("second_encoder"), "MODEL.CLIP.NAME", str(TESTS / "helpers" / clip))
    if clip == "toy_vit.json":
        own += ("MODEL.HSM.ENABLED", False, "MODEL.GUD.GUIDANCE_DIMS", [0, 0, 0])
    model, alone = (err_seg.build_model(toy_cfg(*own, "MODEL.CLIP.ENCODER", kind)) for kind in ("second", "auto"))
    liven(model)
    assert [type(block) for block in model.encoder.blocks()] == [type(block) for block in alone.encoder.blocks()]
    assert model.encoder.maps.deep[1:] == alone.encoder.maps.deep
    trained, expected = ([n for n, p in m.named_parameters() if p.requires_grad] for m in (model, alone))
    assert len(trained) == len(expected) + 2, "weight and bias of the further map's projection"
    assert not any("second" in name for name in trained)
    before = model.predict(images[0], VOCABULARY).maps
    with torch.no_grad():
        for parameter in model.encoder.second.parameters():
            parameter.mul_(-1)
    assert not torch.equal(model.predict(images[0], VOCABULARY).maps, before), "it guides"


@pytest.mark.parametrize("name", ["parallel_aggregation", "resnet_backbone", "second_encoder"])
def test_recomputed_blocks_change_nothing(name, example, run_cfg, tmp_path):
    own = (*example(name), "SOLVER.MAX_ITER", 2, "SOLVER.IMS_PER_BATCH", 2, "MODEL.ESCF.DROP_PATH", 0.5)
    for recompute in (False, True):
        out = ("OUTPUT_DIR", str(tmp_path / str(recompute)))
        run(run_cfg(*own, *out, "SOLVER.ACTIVATION_CHECKPOINTING", recompute))
    assert metrics(tmp_path / "True", "total_loss") == metrics(tmp_path / "False", "total_loss")


def test_second_encoder_sees_its_own_pixel_statistics(example, toy_cfg):
    model = err_seg.build_model(toy_cfg(*example("second_encoder")))
    pixels = torch.randint(0, 256, (1, 3, 64, 64)).float()
    seen = []
    model.encoder.second.model.forward_intermediates = lambda images, **_: [seen.append(images) or images]
    model.encoder.second((pixels - model.pixel_mean) / model.pixel_std)
    torch.testing.assert_close(seen[0], (pixels / 255 - 0.5) / 0.5, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (("NAME", "test_convnxt"), "NAME: timm has no model 'test_convnxt'; did you mean 'test_convnext'?"),
        (("NAME", "hf-hub:someone/model"), "NAME: timm has no model 'hf-hub:someone/model'"),
        (("OUT_INDEX", 4), "OUT_INDEX must be one of the 4 maps of test_convnext, from -4 to 3, not 4"),
        (("PRETRAINED", "nowhere.pt"), "PRETRAINED must be 'timm', '' or a file of weights; there is no nowhere.pt"),
    ],
)
def test_second_encoder_refuses(settings, sentence, example, toy_cfg):
    key, value = settings
    with pytest.raises(ConfigError, match=re.escape(sentence)):
        err_seg.build_model(toy_cfg(*example("second_encoder"), f"EXTRA.SECOND_ENCODER.{key}", value))


def test_second_encoder_takes_a_file_of_weights(example, toy_cfg, tmp_path):
    own = example("second_encoder")
    model = err_seg.build_model(toy_cfg(*own, "SEED", 3)).encoder.second.model
    torch.save(model.state_dict(), tmp_path / "weights.pth")
    again = err_seg.build_model(toy_cfg(*own, "EXTRA.SECOND_ENCODER.PRETRAINED", str(tmp_path / "weights.pth")))
    for mine, theirs in zip(again.encoder.second.model.parameters(), model.parameters(), strict=True):
        assert torch.equal(mine, theirs)
