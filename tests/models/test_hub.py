"""Models by name and from files: configurations, cache, choice of file, checksums, and errors that help."""

import hashlib
import json
import os
import pickle
import shutil
from inspect import signature
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import err_seg
from err_seg.config import ConfigError
from err_seg.mini.clip import ERR_SEG_WEIGHTS
from err_seg.models import checkpoint, hub, hub_files
from err_seg.models.checkpoint import CheckpointError, open_checkpoint
from err_seg.utils import files
from err_seg.utils.fingerprint import WeightsSource
from err_seg.utils.validation import ArgumentError
from tests.helpers.toy import REPOSITORY, TOY


@pytest.fixture
def offline(monkeypatch, tmp_path):
    """A machine without network and with an empty cache; returns the folder of files put there by hand."""
    monkeypatch.setenv("ERR_SEG_CACHE", str(tmp_path / "cache"))

    def refuse(*arguments, **options):
        raise ConnectionError("no route to host\nand a second line")

    for name in ("hf_hub_download", "snapshot_download", "HfApi"):
        monkeypatch.setattr(hub_files, name, refuse)
    return tmp_path / "cache/weights"


@pytest.mark.parametrize("name", hub.MODELS)
def test_a_named_model_is_a_shipped_configuration(name):
    assert err_seg.get_cfg(hub.MODELS[name].config) == err_seg.get_cfg(
        REPOSITORY / "configs" / f"{hub.MODELS[name].config}.yaml"
    )


@pytest.mark.skipif(not ERR_SEG_WEIGHTS.is_file(), reason="the package has no weights yet")
def test_mini_tells_shapes_apart_without_network(offline):
    from err_seg.mini.scenes import MiniScenes
    from err_seg.mini.vocabulary import VOCABULARY

    model = err_seg.load("mini", device="cpu")
    assert not model.training
    scene = MiniScenes("test", length=1, seed=0)[0]
    labels = model.predict([scene.image], VOCABULARY)[0].labels.numpy()
    assert (labels == scene.label).mean() > 0.8


def test_our_file_says_how_it_is_configured(toy_model, tmp_path):
    model = toy_model()
    file = tmp_path / "model_final.safetensors"
    cfg = err_seg.get_cfg(None, [*TOY, "MODEL.TEXT.CACHE_DIR", "/somewhere/else"])
    err_seg.save_weights(model, file, {"config": cfg.dump(), "iteration": 3})
    loaded = err_seg.load(file, device="cpu", overrides=["MODEL.CRM.NUM_KEPT", 2])
    assert loaded.num_kept == 2
    assert str(loaded.vocabulary_encoder.embeddings.cache_dir) != "/somewhere/else"
    for name, value in model.state_dict().items():
        assert torch.equal(value, loaded.state_dict()[name])


def test_width_tells_released_checkpoints_apart(tmp_path):
    for width, name in ((128, "err-seg-b"), (192, "err-seg-l")):
        file = tmp_path / f"{width}.pth"
        stem = {"sem_seg_head.clip_model.visual.trunk.stem.0.weight": torch.zeros(width, 3, 4, 4)}
        torch.save({"model": {**stem, "sem_seg_head.decoder.head.weight": torch.zeros(1)}}, file)
        assert hub.settings_in(open_checkpoint(file)) == (hub.MODELS[name].config, [])


@pytest.fixture(params=["safetensors", "pth"])
def weights_file(request, toy_model, tmp_path):
    file = tmp_path / f"weights.{request.param}"
    if request.param == "pth":
        torch.save({"model": toy_model().state_dict()}, file)
    else:
        err_seg.save_weights(toy_model(), file)
    return file


def test_a_file_is_hashed_once(weights_file, monkeypatch):
    digest, hashed = hashlib.sha256(weights_file.read_bytes()).hexdigest(), []
    monkeypatch.setattr(checkpoint, "file_sha256", lambda file: (hashed.append(file), files.file_sha256(file))[1])
    monkeypatch.setattr(Path, "read_bytes", None)  # it would hold the file in memory beside its tensors
    model = err_seg.load(weights_file, config="mini", overrides=TOY, device="cpu", sha256=digest)
    assert model.source.sha256 == digest
    assert hashed == [weights_file]


def test_a_file_that_changes_after_it_was_hashed_is_refused(weights_file, monkeypatch):
    def replace(file):
        digest = files.file_sha256(file)
        file.write_bytes(file.read_bytes())
        return digest

    monkeypatch.setattr(checkpoint, "file_sha256", replace)
    with pytest.raises(CheckpointError, match="changed while it was read"):
        err_seg.load(weights_file, config="mini", overrides=TOY, device="cpu")


@pytest.mark.parametrize(("name", "save"), [("model.safetensors", save_file), ("model.pth", torch.save)])
def test_what_was_hashed_is_what_is_loaded(tmp_path, name, save):
    file = tmp_path / name
    save({"head.x": torch.ones(1 << 16)}, file)
    read = open_checkpoint(file)
    with open(file, "r+b") as stream:  # in place, as a copying program writes
        stream.seek(4096)
        stream.write(bytes(1 << 17))
    assert bool((read.weights["head.x"] == 1).all())


def test_file_without_configuration(toy_model, tmp_path):
    err_seg.save_weights(toy_model(), tmp_path / "weights.safetensors")
    with pytest.raises(hub.HubError, match="give its configuration"):
        err_seg.load(tmp_path / "weights.safetensors")


def test_checkpoint_of_the_other_size(toy_model, toy_cfg, tmp_path):
    file = tmp_path / "weights.safetensors"
    err_seg.save_weights(toy_model("MODEL.COST_EMBEDDING.DIM", 32), file, {"config": toy_cfg().dump()})
    with pytest.raises(CheckpointError, match="checkpoint of another size"):
        err_seg.load(file, device="cpu")


def test_a_malicious_pickle_is_not_executed(tmp_path):
    class Attack:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path}/executed",)

    for save in (
        lambda file: torch.save({"model": Attack()}, file),
        lambda file: file.write_bytes(pickle.dumps(Attack())),
    ):
        save(tmp_path / "evil.pth")
        for config in (None, "err-seg-b"):
            with pytest.raises(CheckpointError, match=r"evil\.pth"):
                err_seg.load(tmp_path / "evil.pth", config=config, overrides=TOY)
    assert not (tmp_path / "executed").exists()


def test_checksum(toy_model, toy_cfg, tmp_path):
    file = tmp_path / "weights.safetensors"
    err_seg.save_weights(toy_model(), file, {"config": toy_cfg().dump()})
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    err_seg.load(file, device="cpu", sha256=digest.upper())
    with pytest.raises(hub.HubError, match=digest):
        err_seg.load(file, device="cpu", sha256="0" * 64)


def test_without_network_the_error_says_which_file_to_put_where(offline):
    with pytest.raises(hub.HubError) as caught:
        err_seg.load("err-seg-l")
    message = str(caught.value)
    assert "https://huggingface.co/lchen1019/ERR-Seg" in message
    assert str(offline / "err-seg-l.pth") in message
    assert "\n" not in message
    offline.mkdir(parents=True)
    (offline / "err-seg-l.pth").write_bytes(b"")
    assert hub.find_weights("err-seg-l").file == offline / "err-seg-l.pth"


def test_a_folder_with_several_networks(toy_model, tmp_path):
    run, names = tmp_path / "run", ("model_best.safetensors", "model_final.safetensors")
    toy_model().save_pretrained(run / "published")
    for number, name in enumerate(names):
        shutil.copy(run / "published/model.safetensors", run / name)
        if number == 0:
            assert err_seg.load(run, device="cpu").source.file == str(run / name), "not what lies deeper"
    with pytest.raises(hub.HubError, match=r"2 files of .*filename=.*model_best.*model_final.*published"):
        err_seg.load(run)
    for name in (*names, "published/model.safetensors"):
        assert err_seg.load(run, filename=name, device="cpu").source.file == str(run / name)
    with pytest.raises(hub.HubError, match=r"has no file model_last\.safetensors"):
        err_seg.load(run, filename="model_last.safetensors")
    with pytest.raises(hub.HubError, match="is on this machine"):
        err_seg.load(run, revision="main")
    with pytest.raises(hub.HubError, match="is a file"):
        err_seg.load(run / names[0], filename=names[0])


def test_unknown_names(tmp_path):
    for name in ("er-seg-b", "err-seg-B", "err_seg_b", "ERR-SEG-B"):
        with pytest.raises(hub.HubError, match="did you mean 'err-seg-b'"):
            err_seg.load(name)
    (tmp_path / "w.pth").write_bytes(b"")
    with pytest.raises(hub.HubError, match="'mini' is in the package"):
        err_seg.load("mini", revision="main")
    with pytest.raises(ConfigError, match="err_seg_convnext_l"):
        err_seg.load(tmp_path / "w.pth", config="no-such-thing")


MISTAKES = [
    ({"model": None}, ArgumentError, "model must be a text that is not blank, not None"),
    ({"model": 3}, ArgumentError, "not 3"),
    ({"model": b"mini"}, ArgumentError, "not b'mini'"),
    ({"model": ["mini"]}, ArgumentError, "not .'mini'"),
    ({"model": ""}, ArgumentError, "not ''"),
    ({"model": "a" * 300}, ArgumentError, "model must be a name or path, not a text as long as 'aaa"),
    ({"config": "MODEL:\n" * 300}, ArgumentError, "config must be a name or path"),
    ({"model": "mini "}, hub.HubError, "did you mean 'mini'"),
    ({"config": 3}, ArgumentError, "config must be a text"),
    ({"config": ["mini"]}, ArgumentError, "config must be"),
    ({"config": "."}, ConfigError, "no configuration file"),
    ({"overrides": None}, ConfigError, r"overrides must be a list, \[key, value, .*\], not None"),
    ({"overrides": 3}, ConfigError, "not 3"),
    ({"overrides": "MODEL.DEVICE cpu"}, ConfigError, "not 'MODEL.DEVICE cpu'"),
    ({"overrides": {"MODEL.DEVICE": "cpu"}}, ConfigError, "must be a list"),
    ({"overrides": ["MODEL.DEVICE"]}, ConfigError, "'MODEL.DEVICE' has no value"),
    ({"overrides": [3, 3]}, ConfigError, "3 is no key"),
    ({"overrides": ["MODEL.DEVIC", "cpu"]}, ConfigError, "did you mean MODEL.DEVICE"),
    ({"imports": 3}, ArgumentError, "imports must be a list of packages, not 3"),
    ({"imports": [3]}, ArgumentError, "imports must be a text"),
    ({"imports": ["no_such_package"]}, ConfigError, "the package 'no_such_package', .* cannot be imported"),
    ({"device": None}, ArgumentError, "device must be a text"),
    ({"device": 0}, ArgumentError, "not 0"),
    ({"device": "gpu"}, ConfigError, "cannot use 'gpu'"),
    ({"precision": ""}, ArgumentError, "precision must be a text that is not blank"),
    ({"precision": 16}, ArgumentError, "not 16"),
    ({"precision": "fp8"}, ConfigError, "'auto', 'fp32', 'fp16', 'bf16'"),
    ({"sha256": 3}, ArgumentError, "sha256 must be"),
    ({"sha256": "abc"}, ArgumentError, "sha256 must be 64 hexadecimal digits, not 'abc'"),
    ({"sha256": "0" * 64}, hub.HubError, "expected 0000"),
    ({"repository": 3}, ArgumentError, "repository must be"),
    ({"filename": ["a"]}, ArgumentError, "filename must be"),
    ({"revision": True}, ArgumentError, "revision must be"),
]


@pytest.mark.parametrize(("arguments", "kind", "complaint"), MISTAKES)
def test_mistakes_in_arguments(arguments, kind, complaint):
    with pytest.raises(kind, match=complaint):
        err_seg.load(**{"model": "mini", "device": "cpu", **arguments})
    assert kind.__name__ in err_seg.__all__
    assert kind.__name__ in err_seg.load.__doc__


def test_every_argument_is_mistaken_once():
    assert {name for arguments, *_ in MISTAKES for name in arguments} == set(signature(err_seg.load).parameters)


def test_a_device_of_torch_is_one():
    assert err_seg.load("mini", device=torch.device("cpu")).device == torch.device("cpu")


FOREIGN = ["hf-hub:someone/evil", "local-dir:/somewhere", "no-such-clip", "//server/share/clip.json", "hf-hub:a/b.json"]


@pytest.mark.parametrize("name", FOREIGN)
def test_a_file_cannot_name_a_clip_from_elsewhere(toy_model, tmp_path, monkeypatch, name):
    import open_clip

    def refuse(*arguments, **options):
        raise AssertionError("fetched or read")

    for reader in ("get_model_config", "get_tokenizer"):
        monkeypatch.setattr(open_clip, reader, refuse)
    model = toy_model()
    monkeypatch.setattr(model, "settings", {**model.settings, "MODEL.CLIP.NAME": name})
    model.save_pretrained(tmp_path / "evil")
    with pytest.raises(CheckpointError, match=rf"names the CLIP '{name}' \(MODEL\.CLIP\.NAME\).*give a configuration"):
        err_seg.load(tmp_path / "evil", device="cpu")
    loaded = err_seg.load(tmp_path / "evil", device="cpu", config="mini", overrides=TOY)
    assert loaded.settings["MODEL.CLIP.NAME"] == TOY[TOY.index("MODEL.CLIP.NAME") + 1]


def test_every_shipped_configuration_names_a_clip_that_files_may_name(tmp_path):
    for file in (REPOSITORY / "configs").rglob("*.yaml"):
        if file.parent.name == "ablations":
            continue
        stored = {"config": json.dumps(err_seg.get_cfg(file).dump())}
        _, pairs = hub.settings_in(checkpoint.Checkpoint({}, {}, stored, WeightsSource("file", "")))
        assert "MODEL.CLIP.NAME" in pairs


def test_a_changed_config_json_is_reported(toy_model, tmp_path, caplog):
    toy_model().save_pretrained(tmp_path / "toy")
    file = tmp_path / "toy/config.json"
    assert err_seg.load(tmp_path / "toy", device="cpu").num_kept == 4
    assert "config.json" not in caplog.text
    settings = json.loads(file.read_text())
    settings["MODEL"]["CRM"]["NUM_KEPT"] = 2
    file.write_text(json.dumps(settings))
    assert err_seg.load(tmp_path / "toy", device="cpu").num_kept == 4
    (record,) = (record.getMessage() for record in caplog.records if "config.json" in record.getMessage())
    assert record.startswith(f"{file} differs from the configuration in model.safetensors, which alone counts: ")
    assert "MODEL.CRM.NUM_KEPT 2 (counts: 4)" in record
    caplog.clear()
    overridden = err_seg.load(tmp_path / "toy", device="cpu", overrides=["MODEL.CRM.NUM_KEPT", 3])
    assert overridden.num_kept == 3
    for rubbish in ("{", "[]", '{"MODEL": {"UNHEARD": 1}, "INPUT": {}}'):
        file.write_text(rubbish)
        caplog.clear()
        assert err_seg.load(tmp_path / "toy", device="cpu").num_kept == 4
        assert f"{file} differs from" in caplog.text
    file.unlink()
    caplog.clear()
    err_seg.load(tmp_path / "toy", device="cpu")
    assert "config.json" not in caplog.text
