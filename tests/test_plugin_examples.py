"""The packages of examples/plugins: installed, and at toy size trained, resumed, evaluated, loaded and published."""

import json
import re
import shutil
import subprocess
import sys
from functools import partial
from importlib import import_module
from types import SimpleNamespace

import numpy as np
import pytest
import timm
import torch
import yaml
from PIL import Image

import err_seg
from err_seg import plugins
from err_seg.commands import publish, sweep
from err_seg.config import ConfigError
from err_seg.engine import evaluate
from err_seg.engine.step import LossInputs
from err_seg.export import check_onnx, check_program, export_onnx, export_program
from err_seg.lab.sweeps.definition import load_sweep
from err_seg.lab.sweeps.plan import plan_runs
from err_seg.modeling.crm import NOT_KEPT
from err_seg.modeling.encoder import GUIDANCE_BOUND
from err_seg.models.checkpoint import CheckpointError
from err_seg.prediction.attention import record_attention
from tests.helpers.plugins import EXAMPLES, NAMES
from tests.helpers.toy import SHARED, TESTS, TOY, VOCABULARY, liven
from tests.helpers.training import assert_resumes_exactly, environment, lines, metrics, run, write_images

SHORT = ("SOLVER.MAX_ITER", 2, "SOLVER.CHECKPOINT_PERIOD", 1, "LOG.PERIOD", 2, "SOLVER.IMS_PER_BATCH", 2)
OF_THE_NETWORK = ["parallel_aggregation", "resnet_backbone", "second_encoder", "shuffle_decoder"]
RESEARCH = ["parallel_aggregation", "second_encoder"]
PARTS = {
    "parallel_aggregation": lambda model: model.head.escf.layers[0].merge.experts,
    "resnet_backbone": lambda model: model.encoder.clip.visual.layer4,
    "second_encoder": lambda model: model.encoder.second.model,
    "shuffle_decoder": lambda model: model.head.gud.predict,
}


def test_there_is_one_of_each_kind():
    assert len(NAMES) == 8
    for name in NAMES:
        text = (EXAMPLES / name / "README.md").read_text()
        assert f"pip install ./examples/plugins/{name}\n" in text
        assert f"`imported {name} 1.0`" in text
        assert f"err-seg train --config-file examples/plugins/{name}/train.yaml" in text
        assert yaml.safe_load((EXAMPLES / name / "train.yaml").read_text())["MODEL"]["IMPORTS"] == [name]


def forget(name, monkeypatch):
    """Make a package one that this process has not imported yet."""
    monkeypatch.setattr(plugins, "_versions", {})
    del sys.modules[name]


@pytest.mark.parametrize("name", sorted({*NAMES} - {"street_data"}))
def test_an_example_trains_resumes_evaluates_loads_predicts_and_publishes(
    name, example, run_cfg, tmp_path, monkeypatch, images, capsys
):
    own = (*example(name), *SHORT, "OUTPUT_DIR", str(tmp_path / "straight"))
    assert_resumes_exactly(run_cfg, tmp_path, monkeypatch, *own, stops=(1,), last=2)
    if name == "dice_loss":
        (line,) = (line for line in lines(tmp_path / "straight") if "lr" in line)
        assert line["loss_dice"] > 0
        assert line["loss_sem_seg"] + line["loss_dice"] == pytest.approx(line["total_loss"], rel=1e-6)

    weights = tmp_path / "straight/model_final.safetensors"
    forget(name, monkeypatch)
    with pytest.raises(CheckpointError, match=rf"not imported: {name} 1\.0\. If you trust .*imports=\['{name}'\]"):
        err_seg.load(weights, device="cpu")
    model = err_seg.load(weights, device="cpu", imports=name)
    if name in PARTS:
        assert PARTS[name](model) is not None
    assert model.predict(images[0], VOCABULARY).labels.shape == images[0].shape[:2]

    (result,) = evaluate(run_cfg(*own, "MODEL.WEIGHTS", str(weights)), model)
    assert ("mDice" in result.metrics) == (name == "dice_metric")
    if name == "dice_metric":
        assert result.metrics["mIoU"] < result.metrics["mDice"] < 100, "Dice is never below IoU"
    forget(name, monkeypatch)
    assert publish.main([str(tmp_path / "straight"), "someone/toys", "--dry-run"]) == 2
    assert f"--import {name}" in capsys.readouterr().err
    assert publish.main([str(tmp_path / "straight"), "someone/toys", "--dry-run", "--import", name]) == 0
    assert f"imports=['{name}']" in (tmp_path / "straight/published/README.md").read_text()
    again = err_seg.load(tmp_path / "straight/published", device="cpu")
    assert again.settings == model.settings
    assert torch.equal(again.predict(images[0], VOCABULARY).maps, model.predict(images[0], VOCABULARY).maps)


def test_street_data_trains(example, run_cfg, tmp_path):
    own = example("street_data")
    assert own[:2] == ["MODEL.IMPORTS", ["street_data"]]
    for split in ("train", "val"):
        write_images(tmp_path, split, 3, 11)
        (tmp_path / "streets").mkdir(exist_ok=True)
        (tmp_path / split / "images").rename(tmp_path / "streets" / split)
        (tmp_path / split / "labels").rename(tmp_path / "streets" / f"{split}annot")
    for file in tmp_path.glob("streets/*annot/*.png"):
        relabelled(file)
    data = ("DATASETS.TRAIN", ["streets_train"], "DATASETS.VAL", ["streets_val"], "DATASETS.TEST", ["streets_val"])
    cfg = run_cfg(
        "MODEL.IMPORTS", ["street_data"], *data, *SHORT, "DATASETS.ROOT", str(tmp_path), "DATASETS.CUSTOM", []
    )
    (result,) = evaluate(cfg, run(cfg).eval())
    assert len(result.class_names) == 11
    stored = json.loads((tmp_path / "out/results.json").read_text())["benchmarks"]["streets_val"]
    assert stored["pictures"] == 3
    assert stored["settings"]["K"] == 4, "the toy configuration's own goes before the data set's"


def relabelled(file):
    """Write the data set's own label into pixels without one."""
    label = np.array(Image.open(file))
    Image.fromarray(np.where(label == 255, 11, label).astype(np.uint8)).save(file)


@pytest.mark.skipif(not (SHARED / "camvid").is_dir(), reason="needs street images")
def test_street_data_reads_photographs(example, run_cfg, tmp_path):
    example("street_data")
    (tmp_path / "streets").symlink_to(SHARED / "camvid")
    data = ("DATASETS.TRAIN", ["streets_train"], "DATASETS.TEST", [], "DATASETS.ROOT", str(tmp_path))
    run(run_cfg("MODEL.IMPORTS", ["street_data"], *data, *SHORT, "DATASETS.CUSTOM", []))
    assert metrics(tmp_path / "out", "total_loss")[0] > 0


# ---- each part by itself


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
    own = (*example(name), *SHORT, "LOG.PERIOD", 1, "MODEL.ESCF.DROP_PATH", 0.5)
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


# ---- sweeps, export, installation


@pytest.mark.parametrize("name", RESEARCH)
def test_sweeps_build(name, example, tmp_path):
    example(name)
    for mini in (False, True):
        plan = load_sweep(EXAMPLES / name / f"{name}_sweep.yaml", mini=mini)
        runs = plan_runs(plan, tmp_path)
        assert len({run.evaluation.folder for run in runs}) == len(runs) == 3 * len(plan.seeds)
        if mini:
            for a_run in runs[:: len(plan.seeds)]:
                assert err_seg.build_model(a_run.cfg) is not None
    assert "has not been measured" in load_sweep(EXAMPLES / name / f"{name}_sweep.yaml").note


@pytest.mark.slow
@pytest.mark.parametrize("name", RESEARCH)
def test_sweeps_run(name, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PYTHONPATH", f"{EXAMPLES / name}:{environment()['PYTHONPATH']}")
    monkeypatch.syspath_prepend(EXAMPLES / name)
    variants = list(load_sweep(EXAMPLES / name / f"{name}_sweep.yaml", mini=True).variants)
    arguments = [str(EXAMPLES / name / f"{name}_sweep.yaml"), "--mini", "--seeds", "0", "--scenes", "8", "4", "24"]
    arguments += ["--output", str(tmp_path), "--variants", *(variant.name for variant in variants[:2])]
    tiny = ["SOLVER.MAX_ITER", "2", "INPUT.SIZE", "64", "INPUT.CROP_SIZE", "64", "INPUT.MIN_SIZE_TRAIN", "[64]"]
    assert sweep.main([*arguments, "--engine", "plain", *tiny]) == 0
    rows = json.loads((tmp_path / f"{name}_sweep-mini/results.json").read_text())["rows"]
    assert sum(bool(row["figures"]) for row in rows) == 2


@pytest.mark.slow
@pytest.mark.parametrize("ending", ["pt2", "onnx"])
@pytest.mark.parametrize("name", OF_THE_NETWORK)
def test_export(name, ending, example, toy_model, tmp_path):
    if ending == "onnx":
        for library in ("onnx", "onnxscript", "onnxruntime"):
            pytest.importorskip(library)
    write, check = {"pt2": (export_program, check_program), "onnx": (export_onnx, check_onnx)}[ending]
    model = toy_model(*example(name)).eval()
    write(model, tmp_path / f"net.{ending}")
    assert check(model, tmp_path / f"net.{ending}").holds


INSTALLED = """
import err_seg
from err_seg.plugins import imported_packages
cfg = err_seg.get_cfg("mini/err_seg", ["MODEL.GUD.NAME", "shuffle", "OUTPUT_DIR", "out"])
print(sorted(imported_packages().items()))
print(type(err_seg.build_model(cfg).head.gud).__name__)
"""


@pytest.mark.parametrize("names", [["shuffle_decoder"], pytest.param(NAMES, marks=pytest.mark.slow)])
def test_installed_packages_are_found_by_their_entry_points(names, tmp_path):
    for name in names:  # a build leaves files beside the sources
        shutil.copytree(EXAMPLES / name, tmp_path / "sources" / name)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    sources = [str(tmp_path / "sources" / name) for name in names]
    subprocess.run([*pip, "--target", str(tmp_path / "site"), *sources], check=True, timeout=300)
    shutil.rmtree(tmp_path / "sources")
    variables = {**environment(), "PYTHONPATH": f"{tmp_path / 'site'}:{environment()['PYTHONPATH']}"}
    command = [sys.executable, "-c", INSTALLED]
    done = subprocess.run(command, env=variables, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-2:] == [str([(name, "1.0") for name in names]), "PixelShuffleDecoder"]


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted({*NAMES} - {"street_data"}))
def test_an_example_runs_as_its_readme_says(name, tmp_path):
    variables = {**environment(), "PYTHONPATH": f"{EXAMPLES / name}:{environment()['PYTHONPATH']}"}
    command = [sys.executable, "-m", "err_seg", "train", "--engine", "plain"]
    command += [
        "--config-file",
        str(EXAMPLES / name / "train.yaml"),
        "SOLVER.MAX_ITER",
        "1",
        "SOLVER.IMS_PER_BATCH",
        "2",
    ]
    command += [
        "OUTPUT_DIR",
        "out",
        "DATASETS.TEST",
        "['mini_world_test_24']",
        "DATASETS.VAL",
        "[]",
        "DATASETS.ROOT",
        ".",
    ]
    done = subprocess.run(command, env=variables, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert f"imported {name} 1.0" in (tmp_path / "out/log.txt").read_text() + done.stderr
