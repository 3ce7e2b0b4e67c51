"""Weights on disk: ours, released ones, damaged ones and evil ones."""

import json
import os
import pickle
import time

import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

import err_seg
from err_seg.models.checkpoint import CheckpointError, read_shapes, weights_file_digest
from err_seg.models.checkpoint_names import current_names
from tests.helpers.released import released_state
from tests.helpers.toy import GOLDEN, REPOSITORY, TOY, VOCABULARY


def test_saved_weights_give_the_same_predictions(toy_model, toy_cfg, images, tmp_path):
    model = toy_model()
    err_seg.save_weights(model, tmp_path / "deep" / "model.safetensors", {"iteration": 7})
    other = err_seg.build_model(toy_cfg("MODEL.WEIGHTS", str(tmp_path / "deep" / "model.safetensors"), "SEED", 5))
    ours, theirs = (m.predict(images, VOCABULARY) for m in (model, other))
    for a, b in zip(ours, theirs, strict=True):
        assert torch.equal(a.probabilities, b.probabilities)
    with safe_open(tmp_path / "deep" / "model.safetensors", "pt") as file:
        assert json.loads(file.metadata()["iteration"]) == 7
    (file,) = (tmp_path / "deep").iterdir()
    (tmp_path / "ordinary").touch()
    assert file.stat().st_mode == (tmp_path / "ordinary").stat().st_mode


def test_released_layout_is_imported(toy_model, toy_cfg, tmp_path):
    model = toy_model()
    torch.save({"model": released_state(model), "iteration": 79999}, tmp_path / "model_final.pth")
    other = err_seg.build_model(toy_cfg("SEED", 9))
    err_seg.load_weights(other, tmp_path / "model_final.pth")
    for name, value in model.state_dict().items():
        assert torch.equal(other.state_dict()[name], value), name
    err_seg.load_weights(other, {"model": released_state(model)})
    err_seg.load_weights(other, model.state_dict())


@pytest.mark.parametrize("size", ["b", "l"])
def test_every_entry_of_a_released_checkpoint_has_its_place(size):
    shapes = json.loads((GOLDEN / f"checkpoint_keys_{size}.json").read_text())
    config = REPOSITORY / "configs" / f"err_seg_convnext_{size}.yaml"
    with torch.device("meta"):
        model = err_seg.build_model(err_seg.get_cfg(config, ["MODEL.CLIP.PRETRAINED", "", "MODEL.DEVICE", "meta"]))
    imported = current_names({name: torch.empty(shape, device="meta") for name, shape in shapes.items()})
    assert {n: v.shape for n, v in imported.items()} == {n: v.shape for n, v in model.state_dict().items()}
    assert len(imported) == len(shapes)


def first_names(state):
    """Name entries as version 0.1 did, whose head was no module of its own."""
    return {name.removeprefix("head."): value for name, value in state.items()}


def test_checkpoints_of_the_first_version_load_from_files_dictionaries_and_with_detectron2s_prefix(
    toy_model, toy_cfg, tmp_path
):
    state = toy_model().state_dict()
    old = first_names(state)
    assert old.keys() != state.keys()
    err_seg.save_weights(old, tmp_path / "old.safetensors")
    torch.save({"model": {f"network.{name}": value for name, value in old.items()}}, tmp_path / "old.pth")
    for source in (old, tmp_path / "old.safetensors", tmp_path / "old.pth"):
        model = err_seg.build_model(toy_cfg("SEED", 9))
        err_seg.load_weights(model, source)
        for name, value in model.state_dict().items():
            assert torch.equal(value, state[name]), name


def test_todays_names_stay(toy_model):
    state = toy_model().state_dict()
    assert current_names(state).keys() == state.keys()


def test_differences_are_listed_and_nothing_is_loaded(toy_model):
    model = toy_model()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = {name: value + 1 for name, value in before.items()}
    state["head.gud.head.weight"] = torch.zeros(1, 9, 1, 1)
    state["unheard.of"] = torch.zeros(1)
    del state["head.gud.head.bias"]
    with pytest.raises(CheckpointError) as caught:
        err_seg.load_weights(model, state)
    for part in (
        "3 differences",
        "missing: head.gud.head.bias",
        "not in the model: unheard.of",
        "head.gud.head.weight: the model",
    ):
        assert part in str(caught.value)
    assert all(torch.equal(model.state_dict()[name], value) for name, value in before.items())


def test_weights_of_another_size(toy_model, tmp_path):
    err_seg.save_weights(toy_model("MODEL.COST_EMBEDDING.DIM", 32), tmp_path / "other.safetensors")
    with pytest.raises(CheckpointError, match="another size"):
        err_seg.load_weights(toy_model(), tmp_path / "other.safetensors")


class Evil:
    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("with_torch", [True, False])
def test_a_malicious_pickle_is_not_executed(toy_model, tmp_path, with_torch):
    file = tmp_path / "evil.pth"
    content = {"model": {"weight": Evil(tmp_path / "executed")}}
    if with_torch:
        torch.save(content, file)
    else:
        file.write_bytes(pickle.dumps(content))
    with pytest.raises(CheckpointError, match=r"evil\.pth"):
        err_seg.load_weights(toy_model(), file)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("name", ["model.safetensors", "model.pth"])
def test_damaged_and_missing_files(toy_model, tmp_path, name):
    model, file = toy_model(), tmp_path / name
    with pytest.raises(CheckpointError, match="no checkpoint"):
        err_seg.load_weights(model, file)
    for content in (b"", b"not a checkpoint at all", bytes(range(256)) * 8):
        file.write_bytes(content)
        with pytest.raises(CheckpointError, match=name):
            err_seg.load_weights(model, file)
    Image.new("RGB", (4, 4)).save(tmp_path / "photo.png")
    with pytest.raises(CheckpointError, match=r"photo\.png is no checkpoint"):
        err_seg.load_weights(model, tmp_path / "photo.png")
    with pytest.raises(CheckpointError, match="it is a folder; name a file in it"):
        err_seg.load_weights(model, tmp_path)
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(CheckpointError, match="list"):
        err_seg.load_weights(model, tmp_path / "list.pth")


@pytest.mark.parametrize("name", ["model.safetensors", "model.pth"])
def test_what_git_lfs_puts_in_place_of_weights_is_recognised(tmp_path, name):
    (tmp_path / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n")
    with pytest.raises(CheckpointError, match=rf"{name} only points to the weights; .*git lfs pull"):
        err_seg.load(tmp_path / name)


def test_clip_weights_from_a_local_file(toy_model, toy_cfg, tmp_path):
    model = toy_model()
    torch.save(model.encoder.clip.state_dict(), tmp_path / "clip.pt")
    other = err_seg.build_model(toy_cfg("MODEL.CLIP.PRETRAINED", str(tmp_path / "clip.pt"), "SEED", 3))
    for name, value in model.encoder.clip.state_dict().items():
        assert torch.equal(other.encoder.clip.state_dict()[name], value)
    # HSM's convolution starts as a copy of the loaded stage-4 downsampling
    downsample = model.encoder.clip.visual.trunk.stages[3].downsample
    assert torch.equal(other.encoder.hsm.conv.weight, downsample[1].weight)
    assert torch.equal(other.encoder.hsm.norm.weight, downsample[0].weight)


def test_clip_weights_of_another_model(toy_cfg, tmp_path):
    torch.save({"visual.weight": torch.zeros(3)}, tmp_path / "clip.pt")
    with pytest.raises(ValueError, match=r"clip\.pt"):
        err_seg.build_model(toy_cfg("MODEL.CLIP.PRETRAINED", str(tmp_path / "clip.pt")))


def test_without_network_the_error_says_which_file_to_put_where(monkeypatch):
    import open_clip

    from err_seg.modeling.clip import load_clip_weights

    def fail(*args, **kwargs):
        raise OSError("no route to host")

    monkeypatch.setattr(open_clip, "download_pretrained", fail)
    with pytest.raises(
        ValueError, match=r"(?s)no route to host.*laion/CLIP-convnext_base_w_320.*MODEL\.CLIP\.PRETRAINED"
    ):
        load_clip_weights(None, "convnext_base_w_320", "laion_aesthetic_s13b_b82k")


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_weights_that_are_not_finite_are_refused_and_named(toy_model, tmp_path, value):
    model, state = toy_model(), {name: entry.clone() for name, entry in toy_model().state_dict().items()}
    before = {name: entry.clone() for name, entry in model.state_dict().items()}
    state["head.gud.head.weight"][0, 1] = value
    state["encoder.clip.text_projection"][3] = value
    err_seg.save_weights(state, tmp_path / "model.safetensors")
    torch.save({"model": state}, tmp_path / "model.pth")
    for source in (state, tmp_path / "model.safetensors", tmp_path / "model.pth"):
        with pytest.raises(CheckpointError, match=r"NaN or infinity in 2 of \d+ entries.*nothing was loaded") as caught:
            err_seg.load_weights(model, source)
        assert all(name in str(caught.value) for name in ("encoder.clip.text_projection", "head.gud.head.weight"))
    assert all(torch.equal(model.state_dict()[name], entry) for name, entry in before.items())


def test_clip_weights_that_are_not_finite_are_refused(toy_model, toy_cfg, tmp_path):
    state = toy_model().encoder.clip.state_dict()
    state["visual.trunk.stem.0.weight"][0] = torch.nan
    torch.save(state, tmp_path / "clip.pt")
    with pytest.raises(ValueError, match=r"clip\.pt holds no weights of .*NaN or infinity in visual\.trunk\.stem\.0"):
        err_seg.build_model(toy_cfg("MODEL.CLIP.PRETRAINED", str(tmp_path / "clip.pt")))


@pytest.mark.parametrize("name", ["model.safetensors", "model.pth"])
def test_tied_parameters_are_written_and_read(toy_model, tmp_path, name):
    def tied(seed):
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 3, bias=False))
        model[1].weight = model[0].weight
        model[2].weight = nn.Parameter(model[0].weight.detach()[:])  # another parameter in the same memory
        return model

    first, second = tied(0), tied(1)
    if name.endswith("pth"):
        torch.save(first.state_dict(), tmp_path / name)
    else:
        err_seg.save_weights(first, tmp_path / name)
    err_seg.load_weights(second, tmp_path / name)
    assert second[1].weight is second[0].weight
    assert all(torch.equal(first.state_dict()[key], value) for key, value in second.state_dict().items())


@pytest.mark.parametrize(
    "prefix", ["module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module.", "module.network."]
)
def test_entries_of_wrapped_networks_are_recognised(toy_model, toy_cfg, tmp_path, prefix):
    model = toy_model()
    other = err_seg.build_model(toy_cfg("SEED", 9))
    for entries in (model.state_dict(), *([] if "network" in prefix else [released_state(model)])):
        torch.save({"model": {f"{prefix}{name}": value + 1 for name, value in entries.items()}}, tmp_path / "other.pth")
        torch.save({"model": {f"{prefix}{name}": value for name, value in entries.items()}}, tmp_path / "wrapped.pth")
        err_seg.load_weights(other, tmp_path / "other.pth")
        err_seg.load_weights(other, tmp_path / "wrapped.pth")
        assert all(torch.equal(other.state_dict()[name], value) for name, value in model.state_dict().items())


def test_compiled_parts_are_recognised(toy_model, toy_cfg):
    """As after ``model.head = torch.compile(model.head)``."""
    model, other = toy_model(), err_seg.build_model(toy_cfg("SEED", 9))
    state = {name.replace("head.", "head._orig_mod.", 1): value for name, value in model.state_dict().items()}
    err_seg.load_weights(other, state)
    assert all(torch.equal(other.state_dict()[name], value) for name, value in model.state_dict().items())


def test_a_safetensors_file_of_another_name_is_recognised(toy_model, toy_cfg, tmp_path):
    model = toy_model()
    err_seg.save_weights(model, tmp_path / "model.safetensors", {"config": toy_cfg().dump()})
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    for source in (tmp_path / "pytorch_model.bin", tmp_path):
        loaded = err_seg.load(source, device="cpu")
        assert loaded.settings == model.settings
        assert all(torch.equal(loaded.state_dict()[name], value) for name, value in model.state_dict().items())
    assert read_shapes(tmp_path / "pytorch_model.bin")["head.gud.head.bias"] == (1,)
    save_file(model.encoder.clip.state_dict(), tmp_path / "clip.bin")
    with pytest.raises(ValueError, match=r"clip\.bin holds no weights.*rename it so that it ends in \.safetensors"):
        err_seg.build_model(toy_cfg("MODEL.CLIP.PRETRAINED", str(tmp_path / "clip.bin")))


@pytest.mark.parametrize("name", ["model-00001-of-00002.safetensors", "model.safetensors.index.json", "a-1-of-3.bin"])
def test_a_checkpoint_in_several_files_is_named(toy_model, tmp_path, name):
    err_seg.save_weights(toy_model(), tmp_path / "whole.safetensors")
    (tmp_path / "whole.safetensors").rename(tmp_path / name)
    with pytest.raises(
        CheckpointError, match=rf"{name} belongs to a checkpoint in several files.*err_seg\.save_weights"
    ):
        err_seg.load(tmp_path / name, config="mini", overrides=TOY)


def test_a_mismatch_shows_both_sides_and_what_names_have_in_common(toy_model):
    model = toy_model()
    with pytest.raises(CheckpointError) as caught:
        err_seg.load_weights(model, {f"student.net.{name}": value for name, value in model.state_dict().items()})
    number = len(model.state_dict())
    lines = str(caught.value).splitlines()
    assert f"{2 * number} differences" in lines[0]
    assert sum(line.startswith("  missing: ") for line in lines) == 5
    assert f"  missing: {number - 4} more" in lines
    assert lines[6].startswith("  not in the model: student.net.encoder.")
    assert f"  not in the model: {number - 4} more; all begin with 'student.net.'" in lines
    with pytest.raises(CheckpointError, match=r"missing: \d+ more; all begin with 'head\.'"):
        err_seg.load_weights(model, {n: v for n, v in model.state_dict().items() if n.startswith("encoder.")})


def test_clip_weights_of_another_context_length_are_refused(toy_model, toy_cfg, tmp_path):
    """open_clip would interpolate the positions without a word."""
    state = toy_model().encoder.clip.state_dict()
    state["positional_embedding"] = state["positional_embedding"][:64].clone()
    torch.save(state, tmp_path / "clip.pt")
    with pytest.raises(ValueError, match=r"clip\.pt holds no weights.*reads 64 tokens of a text, the model 77"):
        err_seg.build_model(toy_cfg("MODEL.CLIP.PRETRAINED", str(tmp_path / "clip.pt")))


def test_other_names_in_clip_weights_are_shown_shortly(toy_model, toy_cfg, tmp_path):
    state = toy_model().encoder.clip.state_dict()
    torch.save({f"_orig_mod.{name}": value for name, value in state.items()}, tmp_path / "clip.pt")
    with pytest.raises(ValueError, match=r'(?s)Missing.*"positional_embedding".*Unexp.*"_orig_mod\.') as caught:
        err_seg.build_model(toy_cfg("MODEL.CLIP.PRETRAINED", str(tmp_path / "clip.pt")))
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        (["MODEL.COST_EMBEDDING.DIM", 10**7], r"head\.cost_embedding\.fuse\.weight: the model has \(10000000, "),
        (["MODEL.ESCF.NUM_LAYERS", 20_000], r"holds 2 layers of ESCF, but MODEL\.ESCF\.NUM_LAYERS is 20000"),
        (["MODEL.COST_EMBEDDING.HIDDEN_DIM", 10**18], "sizes under MODEL do not make a network"),
        (["MODEL.ESCF.GUIDANCE_HIDDEN_DIM", 10**30], "sizes under MODEL do not make a network"),
    ],
)
def test_sizes_are_compared_with_the_tensors_before_a_network_is_built(
    toy_model, toy_cfg, tmp_path, settings, complaint
):
    err_seg.save_weights(toy_model(), tmp_path / "model.safetensors", {"config": toy_cfg(*settings).dump()})
    start = time.perf_counter()
    with pytest.raises(CheckpointError, match=complaint):
        err_seg.load(tmp_path / "model.safetensors", device="cpu")
    assert time.perf_counter() - start < 10


def test_a_remembered_digest_that_is_none_is_computed_again(toy_model, tmp_path, monkeypatch):
    monkeypatch.setenv("ERR_SEG_CACHE", str(tmp_path / "cache"))
    file = tmp_path / "model.safetensors"
    err_seg.save_weights(toy_model(), file)
    os.utime(file, (1, 1))
    monkeypatch.setattr("err_seg.models.checkpoint.is_settled", lambda signature: True)
    digest = weights_file_digest(file)
    (known,) = (tmp_path / "cache/digests").iterdir()
    assert known.read_text() == digest
    for rubbish in ("", "rubbish", digest[:-1], "é"):
        known.write_text(rubbish)
        assert weights_file_digest(file) == digest
        assert known.read_text() == digest
