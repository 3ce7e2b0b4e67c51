"""The recipes of docs/architecture.md run: each example as it is written, on toy data where it names real one."""

import json

import pytest
import torch

import err_seg
from err_seg.models import build
from tests.helpers.documents import blocks
from tests.helpers.toy import REPOSITORY
from tests.helpers.training import write_images

TEXT = (REPOSITORY / "docs/architecture.md").read_text(encoding="utf-8")
RESNET = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
}


def recipe(title):
    """Return the example below a heading."""
    (example,) = blocks(TEXT.split(f"\n## {title}\n")[1].split("\n## ")[0], "python")
    return example


@pytest.fixture
def toy_configuration(run_cfg, monkeypatch):
    """Return a function from settings to nothing: a toy configuration with them takes the place of the named file's."""
    get_cfg = err_seg.get_cfg

    def use(*settings):
        def toy(file, overrides=()):
            if file is None:  # what `run_cfg` asks for
                return get_cfg(None, overrides)
            get_cfg(REPOSITORY / file, overrides)  # it must exist
            return run_cfg(*overrides, *settings)

        monkeypatch.setattr(err_seg, "get_cfg", toy)

    return use


def test_add_a_backbone(toy_configuration, tmp_path, monkeypatch, images):
    (tmp_path / "resnet.json").write_text(json.dumps(RESNET))
    monkeypatch.setattr(build, "ENCODERS", build.ENCODERS)
    no_guidance = ("MODEL.HSM.ENABLED", False, "MODEL.GUD.GUIDANCE_DIMS", [0, 0, 0])
    toy_configuration("MODEL.CLIP.NAME", str(tmp_path / "resnet.json"), *no_guidance)
    names: dict = {}
    exec(recipe("Add a backbone"), names)
    model = names["model"]
    assert type(model.encoder) is names["ResNetEncoder"]
    assert model.predict(images[0], ["cat", "dog", "sky"]).labels.shape == images[0].shape[:2]
    features = model.encoder(torch.zeros(1, 3, 64, 64))
    for maps, tensors in zip(model.encoder.maps, features, strict=True):
        for known, tensor in zip(maps, tensors, strict=True):
            assert tensor.shape == (1, known.channels, 64 // known.stride, 64 // known.stride), known.name
    model.encoder.set_trainable(image="weight", text="none", hsm_conv=False)
    trained = [name for name, parameter in model.encoder.named_parameters() if parameter.requires_grad]
    assert len(trained) == 3 + 4 * 3, "the stem's convolutions and those of the four blocks"


def test_add_a_data_set(toy_configuration, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_images(tmp_path, "streets", 3, 4)
    toy_configuration()
    exec(recipe("Add a data set").replace("/data/streets", str(tmp_path / "streets")), {})
    assert 0 <= float(capsys.readouterr().out) <= 100
    result = json.loads((tmp_path / "output/my_streets/results.json").read_text())["benchmarks"]["my_streets"]
    assert result["pictures"] == 3
    assert result["settings"]["K"] == 4, "the toy configuration's own goes before the data set's"


def test_add_a_decoder_module(toy_configuration, tmp_path):
    toy_configuration("SOLVER.MAX_ITER", 2)
    names: dict = {}
    exec(recipe("Add a decoder module"), names)
    assert type(names["model"].head.gud) is names["PixelShuffleDecoder"]
    assert (tmp_path / "out/model_final.safetensors").is_file()


def test_add_a_metric(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    exec(recipe("Add a metric"), {})
    miou, dice = map(float, capsys.readouterr().out.split())
    assert miou < dice < 100, "Dice is never below IoU"
    (result,) = json.loads((tmp_path / "results.json").read_text())["benchmarks"].values()
    assert result["metrics"]["mDice"] == pytest.approx(dice)
