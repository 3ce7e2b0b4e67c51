"""Models saved to folders and repositories, and the card that goes with them."""

import json
from dataclasses import replace

import pytest
import torch
import yaml
from huggingface_hub.utils import filter_repo_objects

import err_seg
from err_seg.commands import publish
from err_seg.evaluation import BenchmarkResult, save_results
from err_seg.models import pretrained
from err_seg.models.card import TrainingRecord
from err_seg.models.hub import HubError
from err_seg.utils.files import file_sha256
from tests.helpers.toy import VOCABULARY

FILES = ["README.md", "config.json", "model.safetensors"]
METRICS = {"mIoU": 34.123456789, "mIoU-v0.6": 31.2, "fwIoU": 60.0, "mACC": 50.5, "pACC": 70.25}
RESULTS = [
    BenchmarkResult("A-150", METRICS, ["wall"], [9], 3, {"K": 4, "S": 64, "precision": "fp32"}),
    BenchmarkResult("PC-59", {**METRICS, "mIoU": 56.9}, ["wall"], [9], 3),
]


@pytest.fixture
def uploads(monkeypatch):
    """Record what would be uploaded, with a token; a list of (repository, names of files)."""
    done = []

    class Api:
        def create_repo(self, repository, *, private, exist_ok):
            done.append((repository, private))

        def upload_folder(self, *, repo_id, folder_path, allow_patterns):
            files = filter_repo_objects((file.name for file in folder_path.iterdir()), allow_patterns=allow_patterns)
            done.append((repo_id, sorted(files)))
            return f"https://huggingface.co/{repo_id}/commit/1"

    monkeypatch.setattr(pretrained, "HfApi", Api)
    monkeypatch.setattr(pretrained, "get_token", lambda: "token")
    return done


@pytest.fixture
def run_folder(toy_model, toy_cfg, tmp_path):
    """The output folder of a training that was evaluated."""
    cfg, folder = toy_cfg(), tmp_path / "output"
    err_seg.save_weights(toy_model(), folder / "model_final.safetensors", {"config": cfg.dump()})
    (folder / "config.yaml").write_text(cfg.dump())
    (folder / "environment.json").write_text(json.dumps({"precision": "bf16", "packages": {"torch": "2.9"}}))
    save_results(RESULTS, folder / "results.json")
    return folder


def metadata_of(card):
    return yaml.safe_load(card.split("---")[1])


def test_a_saved_model_predicts_the_same_bit_for_bit(toy_model, images, tmp_path):
    model = toy_model("MODEL.CRM.NUM_KEPT", 2)
    model.save_pretrained(tmp_path / "toy")
    again = err_seg.ERRSeg.from_pretrained(tmp_path / "toy", device="cpu")
    assert type(again) is err_seg.ERRSeg is type(model)
    assert again.settings == model.settings
    for ours, theirs in zip(*(m.predict(images, VOCABULARY) for m in (model, again)), strict=True):
        assert torch.equal(ours.probabilities, theirs.probabilities)
        assert torch.equal(ours.kept, theirs.kept)
    assert sorted(file.name for file in (tmp_path / "toy").iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
    ]
    assert json.loads((tmp_path / "toy/config.json").read_text())["MODEL"]["CRM"]["NUM_KEPT"] == 2


def test_mini_makes_the_round_trip(tmp_path):
    model = err_seg.load("mini", device="cpu")
    model.save_pretrained(tmp_path / "mini")
    again = err_seg.load(tmp_path / "mini", device="cpu")
    image = torch.arange(3 * 60 * 80, dtype=torch.uint8).view(60, 80, 3)
    ours, theirs = (m.predict(image, ["red circle", "blue square", "yellow ring"]) for m in (model, again))
    assert torch.equal(ours.probabilities, theirs.probabilities)


def test_a_network_without_configuration_and_a_folder_without_weights_are_refused(toy_model, tmp_path):
    model = toy_model()
    model.settings = {}
    with pytest.raises(err_seg.ArgumentError, match="build_model"):
        model.save_pretrained(tmp_path)
    with pytest.raises(HubError, match="Its files of weights: none"):
        err_seg.load(tmp_path)


def test_a_cards_figures_are_those_of_the_results_file(run_folder, capsys):
    assert publish.main([str(run_folder), "someone/toys", "--dry-run", "--license", "mit"]) == 0
    printed = capsys.readouterr().out
    card = (run_folder / "published/README.md").read_text()
    assert "model.safetensors" in printed
    stored = json.loads((run_folder / "results.json").read_text())["benchmarks"]
    shown = {
        (entry["dataset"]["name"], metric["name"]): metric["value"]
        for entry in metadata_of(card)["model-index"][0]["results"]
        for metric in entry["metrics"]
    }
    assert shown == {(b, m): stored[b]["metrics"][m] for b in stored for m in ("mIoU", "mIoU-v0.6")}
    for part in ("| A-150", "34.12", "31.20", "K 4, S 64", "coco", 'load("someone/toys")', "* torch: 2.9", "mit"):
        assert part in card
    assert metadata_of(card)["license"] == "mit"
    again = err_seg.load(run_folder / "published", device="cpu")
    original = err_seg.load(run_folder / "model_final.safetensors", device="cpu")
    assert again.settings == original.settings


def test_figures_of_other_weights_are_not_published(run_folder, toy_model, toy_cfg, capsys):
    (run_folder / "results.json").unlink()
    source = {"file": "model_final.safetensors", "sha256": file_sha256(run_folder / "model_final.safetensors")}
    save_results([replace(RESULTS[0], settings={"source": source})], run_folder / "results.json")
    assert publish.main([str(run_folder), "someone/toys", "--dry-run"]) == 0
    err_seg.save_weights(toy_model("SEED", 3), run_folder / "model_best.safetensors", {"config": toy_cfg().dump()})
    best = ["--weights", "model_best.safetensors", "--folder", str(run_folder / "best")]
    assert publish.main([str(run_folder), "someone/toys", "--dry-run", *best]) == 2
    assert "results.json is of other weights (model_final.safetensors)" in capsys.readouterr().err
    assert not (run_folder / "best").exists()


def test_a_card_says_how_figures_and_weights_came_about(run_folder, toy_model, toy_cfg, capsys):
    views = [{"size": 64, "mirrored": mirrored} for mirrored in (False, True)]
    settings = {"K": 4, "S": 64, "min_score": 0.01, "shortest_side": 0, "views": views}
    save_results([replace(RESULTS[0], settings=settings)], run_folder / "results.json")
    facts = {"config": toy_cfg().dump(), "iteration": 7}
    err_seg.save_weights(toy_model(), run_folder / "checkpoints/iter_0000007/model.safetensors", facts)
    early = ["--weights", "checkpoints/iter_0000007/model.safetensors"]
    assert publish.main([str(run_folder), "someone/toys", "--dry-run", *early]) == 0
    card = (run_folder / "published/README.md").read_text()
    assert "A-150: K 4, S 64, minimum score 0.01, averaged over 2 views of each image\n" in card
    assert f"* iterations: 7 of {toy_cfg().SOLVER.MAX_ITER}\n" in card
    (run_folder / "environment.json").write_text("{")
    assert publish.main([str(run_folder), "someone/toys", "--dry-run"]) == 2
    assert f"{run_folder / 'environment.json'} is not what training writes" in capsys.readouterr().err


def test_a_card_says_which_images_were_seen_and_how(run_folder):
    settings = {"K": 4, "shortest_side": 0, "tile": 192, "refine": True, "views": [{}], "num_images": 20}
    save_results([replace(RESULTS[0], settings=settings)], run_folder / "results.json")
    assert publish.main([str(run_folder), "someone/toys", "--dry-run"]) == 0
    card = (run_folder / "published/README.md").read_text()
    assert "A-150: K 4, tile 192, images 20, borders refined\n" in card


def test_a_card_without_figures_says_so(toy_model, tmp_path):
    toy_model().save_pretrained(tmp_path / "toy", run=TrainingRecord())
    card = (tmp_path / "toy/README.md").read_text()
    assert "None were measured." in card
    assert "Not stated." in card
    assert "model-index" not in metadata_of(card)


def test_what_is_uploaded(toy_model, run_folder, uploads, capsys):
    assert toy_model().push_to_hub("someone/toys", private=True) == "https://huggingface.co/someone/toys/commit/1"
    (run_folder / "published").mkdir()
    (run_folder / "published/password.txt").touch()
    assert publish.main([str(run_folder), "someone/more"]) == 0
    printed = capsys.readouterr().out
    assert "https://huggingface.co/someone/more/commit/1" in printed
    assert "password" not in printed
    assert uploads == [
        ("someone/toys", True),
        ("someone/toys", FILES),
        ("someone/more", False),
        ("someone/more", FILES),
    ]


def test_without_token_or_network_nothing_is_uploaded_and_the_folder_stays(run_folder, monkeypatch, capsys):
    monkeypatch.setattr(pretrained, "get_token", lambda: None)
    assert publish.main([str(run_folder), "someone/toys"]) == 1
    error = capsys.readouterr().err
    assert "hf auth login" in error
    assert (run_folder / "published/model.safetensors").is_file()

    class Unreachable:
        def create_repo(self, *arguments, **options):
            raise ConnectionError("no route to host")

    monkeypatch.setattr(pretrained, "get_token", lambda: "token")
    monkeypatch.setattr(pretrained, "HfApi", Unreachable)
    assert publish.main([str(run_folder), "someone/toys"]) == 1
    assert "could not upload to https://huggingface.co/someone/toys (ConnectionError" in capsys.readouterr().err


def test_a_folder_that_is_no_run_is_refused(tmp_path, capsys):
    assert publish.main([str(tmp_path / "nothing"), "someone/toys", "--dry-run"]) == 2
    assert "model_final.safetensors" in capsys.readouterr().err
    assert not (tmp_path / "nothing").exists()
    with pytest.raises(SystemExit):
        publish.main([str(tmp_path), "no-repository"])
