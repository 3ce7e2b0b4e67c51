"""Files in repositories of a hub are recognised by what is in them, whatever their names."""

import hashlib
import logging

import huggingface_hub.constants
import pytest
import torch
from safetensors.torch import save_file

import err_seg
from err_seg.commands import models, sweep
from err_seg.commands.models import load_model
from err_seg.commands.options import add_model_options, command_parser
from err_seg.models import hub, hub_files
from err_seg.models.checkpoint import CheckpointError
from tests.helpers.hub_server import COMMIT, served
from tests.helpers.toy import TOY

B, L, REPOSITORY = 128, 192, "lchen1019/ERR-Seg"


def network(width, prefix="sem_seg_head."):
    """Return the entries of a released checkpoint by which it is known."""
    stem = torch.zeros(width, 3, 4, 4)
    return {
        f"{prefix}clip_model.visual.trunk.stem.0.weight": stem,
        f"{prefix}decoder.head.weight": torch.zeros(1, 32, 3, 3),
    }


def clip(width):
    return {"visual.trunk.stem.0.weight": torch.zeros(width, 3, 4, 4), "logit_scale": torch.zeros(())}


@pytest.fixture
def hub_at(monkeypatch, tmp_path):
    """A hub on this machine with one repository, and empty caches; call it with path to entries."""
    root = tmp_path / "hub"
    monkeypatch.setenv("ERR_SEG_CACHE", str(tmp_path / "cache"))
    with served(root) as server:
        endpoint = f"http://127.0.0.1:{server.server_address[1]}"
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", endpoint)
        template = endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub_cache"))

        def fill(files, repository=REPOSITORY):
            for name, content in files.items():
                file = root / repository / name
                file.parent.mkdir(parents=True, exist_ok=True)
                if isinstance(content, bytes):
                    file.write_bytes(content)
                elif file.suffix == ".safetensors":
                    save_file(content, file)
                else:
                    torch.save({"model": content, "iteration": 80000}, file)
            (root / repository).mkdir(parents=True, exist_ok=True)
            return server

        yield fill


@pytest.mark.parametrize(
    ("b", "large"),
    [
        ("err_seg_convnext_b.pth", "err_seg_convnext_l.pth"),
        ("errsegB.pth", "errsegL.pth"),
        ("B/model_final.pth", "L/model_final.pth"),
        ("640/model.safetensors", "768/model.safetensors"),
        ("first.pth", "second.pth"),
    ],
)
def test_one_file_for_each_size(hub_at, b, large):
    server = hub_at({b: network(B), large: network(L), "README.md": b"# ERR-Seg"})
    for name, file in (("err-seg-b", b), ("err-seg-l", large)):
        found = hub_files.find_weights(name)
        assert (found.repository, found.filename, found.revision) == (REPOSITORY, file, COMMIT)
        assert found.file.read_bytes() == (server.root / REPOSITORY / file).read_bytes()


def test_a_telling_name_spares_the_others(hub_at):
    server = hub_at({"errsegB.pth": network(B), "errsegL.pth": network(L), "optimizer.pt": network(B)})
    hub_files.find_weights("err-seg-b")
    assert {name for name, _ in server.served} == {"errsegB.pth"}


def test_of_safetensors_only_the_header_is_fetched_before_the_choice(hub_at):
    large = {**network(L), "padding": torch.zeros(1 << 20)}
    server = hub_at({"one.safetensors": {**network(B), "padding": torch.zeros(1 << 20)}, "two.safetensors": large})
    assert hub_files.find_weights("err-seg-b").filename == "one.safetensors"
    assert sum(size for name, size in server.served if name == "two.safetensors") < 1 << 19


def test_a_bare_file_is_taken_for_what_it_is(hub_at):
    hub_at({"model_final.pth": network(B)})
    assert hub_files.find_weights("err-seg-b").filename == "model_final.pth"
    with pytest.raises(hub.HubError, match=r"no files of .* are err-seg-l.*model_final\.pth \(err-seg-b\)"):
        hub_files.find_weights("err-seg-l")


def test_a_name_that_lies_is_not_believed(hub_at):
    hub_at({"errseg_b.pth": network(L), "other.pth": network(B)})
    assert hub_files.find_weights("err-seg-b").filename == "other.pth"


def test_two_files_of_one_width_are_listed(hub_at):
    hub_at({"run1/model_final.pth": network(B), "run2/model_final.pth": network(B), "large.pth": network(L)})
    with pytest.raises(hub.HubError) as caught:
        hub_files.find_weights("err-seg-b")
    for part in (
        "2 files",
        "run1/model_final.pth (err-seg-b)",
        "run2/model_final.pth (err-seg-b)",
        "large.pth (named after err-seg-l)",
        "--filename",
    ):
        assert part in str(caught.value)
    assert hub_files.find_weights("err-seg-b", filename="run2/model_final.pth").revision == COMMIT


def test_clip_and_optimizer_beside_it_are_not_it(hub_at):
    files = {"CLIP-convnext_base_w.bin": clip(B), "optimizer.pt": {"step": torch.zeros(1)}, "broken.pth": b"nonsense"}
    server = hub_at({**files, "weights.pth": network(B)})
    assert hub_files.find_weights("err-seg-b").filename == "weights.pth"
    assert {name for name, _ in server.served} == {"broken.pth", "weights.pth"}
    (server.root / REPOSITORY / "weights.pth").unlink()
    with pytest.raises(hub.HubError) as caught:
        hub_files.find_weights("err-seg-b", revision=COMMIT)
    for part in (
        "(CLIP of width 128, without ERR-Seg's head)",
        "optimizer.pt (no ERR-Seg network",
        "broken.pth (cannot be",
    ):
        assert part in str(caught.value)


def test_another_repository_may_hold_what_publish_wrote(hub_at):
    hub_at({"model.safetensors": network(B)}, "someone/b")
    assert hub_files.find_weights("err-seg-b", repository="someone/b").filename == "model.safetensors"
    with pytest.raises(hub.HubError, match=r"no files of someone/b are err-seg-l.*: model.safetensors \(err-seg-b\)"):
        hub_files.find_weights("err-seg-l", repository="someone/b")


def test_what_is_missing_is_named(hub_at, monkeypatch, tmp_path):
    hub_at({"model.safetensors": network(B)}, "someone/b")
    for place, reason in (
        ({"revision": "v9"}, "it has no revision 'v9'"),
        ({"revision": "v9", "filename": "model.safetensors"}, "it has no revision 'v9'"),
        ({"filename": "b.pth", "revision": COMMIT}, f"could not fetch b.pth .* no such file at revision {COMMIT}"),
        ({"repository": "someone/none"}, "there is no such repository, or it is private"),
    ):
        with pytest.raises(hub.HubError, match=reason):
            hub_files.find_weights("err-seg-b", **{"repository": "someone/b", **place})
    (tmp_path / "file").touch()
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "file/cache"))
    with pytest.raises(hub.HubError, match=r"cannot be kept on this machine .* set HF_HOME"):
        hub_files.find_weights("err-seg-b", repository="someone/b")


def test_no_weights_at_all_and_no_repository(hub_at):
    hub_at({"README.md": b"soon"})
    with pytest.raises(hub.HubError, match="Its files of weights: none"):
        hub_files.find_weights("err-seg-b")
    with pytest.raises(hub.HubError, match=r"could not fetch.*no/such"):
        hub_files.find_weights("err-seg-b", repository="no/such")


def test_a_fetched_file_is_found_again_without_network(hub_at, monkeypatch):
    hub_at({"model_final.pth": network(B)})
    fetched = hub_files.find_weights("err-seg-b")
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    template = "http://127.0.0.1:9/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    assert hub_files.find_weights("err-seg-b") == fetched


def test_what_was_loaded_is_said_and_kept(hub_at, toy_model, tmp_path, caplog):
    err_seg.save_weights(toy_model(), tmp_path / "weights.safetensors")
    content = (tmp_path / "weights.safetensors").read_bytes()
    hub_at({"weights.safetensors": content}, "someone/toys")
    exact = {"repository": "someone/toys", "filename": "weights.safetensors", "revision": COMMIT}
    digest = hashlib.sha256(content).hexdigest()
    with caplog.at_level(logging.INFO, logger="err_seg.models.build"):
        model = err_seg.load("err-seg-b", config="mini/err_seg", overrides=TOY, device="cpu", sha256=digest, **exact)
    expected = {"file": "weights.safetensors", "sha256": digest, "repository": "someone/toys", "revision": COMMIT}
    assert model.source.facts() == expected
    (line,) = (record.getMessage() for record in caplog.records if record.levelno == logging.INFO)
    assert all(value in line for value in expected.values())
    assert model.train().source is None, "what is trained is no longer what was read"
    with pytest.raises(hub.HubError, match=digest):
        err_seg.load("err-seg-b", config="mini/err_seg", sha256="0" * 64, **exact)


def test_a_repository_is_a_model(hub_at, toy_model, tmp_path):
    published = toy_model()
    published.save_pretrained(tmp_path / "hub/someone/toys")
    server = hub_at({"optimizer.pt": {"step": torch.zeros(1)}}, "someone/toys")
    for load in (err_seg.load, err_seg.ERRSeg.from_pretrained):
        model = load("someone/toys", revision="main", device="cpu")
        assert (model.source.repository, model.source.revision) == ("someone/toys", COMMIT)
        for name, value in published.state_dict().items():
            assert torch.equal(model.state_dict()[name], value)
    assert {name for name, _ in server.served} == {"model.safetensors"}
    with pytest.raises(hub.HubError, match="named twice"):
        err_seg.load("someone/toys", repository="someone/else")
    with pytest.raises(hub.HubError, match=r"could not fetch.*no/such"):
        err_seg.load("no/such")
    with pytest.raises(hub.HubError, match="no such file"):
        err_seg.load("no/such.pth")


def test_the_command_line_names_exact_weights(hub_at, toy_model, tmp_path):
    err_seg.save_weights(toy_model(), tmp_path / "weights.safetensors")
    hub_at({"weights.safetensors": (tmp_path / "weights.safetensors").read_bytes()}, "someone/toys")
    parser = command_parser("test", None)
    add_model_options(parser)
    exact = ["--repository", "someone/toys", "--filename", "weights.safetensors", "--revision", "main"]
    given = parser.parse_args(
        [*exact, "--config-file", "mini/err_seg", "--model", "err-seg-b", "--opts", *map(str, TOY)]
    )
    given.device, given.opts = "cpu", TOY
    assert load_model(given).source.revision == COMMIT
    given.sha256 = "0" * 64
    with pytest.raises(hub.HubError, match="expected 0000"):
        load_model(given)
    given.model = None
    with pytest.raises(ValueError, match="--repository, --revision, --filename, --sha256: say which weights"):
        load_model(given)


def test_sweeps_evaluate_exact_weights(hub_at):
    server = hub_at({"b.pth": network(B), "model.safetensors": network(B)})
    exact = ["--filename", "b.pth", "--revision", COMMIT]
    digest = hashlib.sha256((server.root / REPOSITORY / "b.pth").read_bytes()).hexdigest()
    for name in ("err-seg-b", REPOSITORY):
        arguments = sweep.parse_arguments(["table.yaml", "--weights", name, *exact, "--sha256", digest])
        assert models.find_weights(arguments).parts[-2:] == (COMMIT, "b.pth")
        arguments.sha256 = "0" * 64
        with pytest.raises(CheckpointError, match="expected 0000"):
            models.find_weights(arguments)
