"""err-seg check: what is in order passes, what is not is found, and the numbers stay the same."""

import pytest
import torch
from PIL import Image

import err_seg
from err_seg.commands import check
from err_seg.mini.clip import ERR_SEG_WEIGHTS
from err_seg.models import check as model_check
from err_seg.utils.files import file_sha256
from tests.helpers.toy import TOY


@pytest.fixture
def run_check(capsys, monkeypatch, tmp_path):
    """Return a function that runs err-seg check in a folder of its own; gives status, output and errors."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        status = check.main(["--device", "cpu", *map(str, arguments)])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


def changed(model, file, change):
    """Write the model's weights after a change of its state."""
    state = {name: value.clone() for name, value in model.state_dict().items()}
    change(state)
    err_seg.save_weights(state, file)


def test_mini_is_in_order_and_its_page_is_saved(run_check, tmp_path):
    status, page, _ = run_check("mini", "--output", "report.txt")
    assert status == 0
    assert (tmp_path / "report.txt").read_text() == page
    for part in (
        f"SHA-256     {file_sha256(ERR_SEG_WEIGHTS)}",
        "245 tensors",
        "kept classes",
        "torch ",
        "all in order",
    ):
        assert part in page
    with Image.open(tmp_path / "report.png") as overlay:
        assert overlay.width > 100
    with pytest.raises(SystemExit):
        run_check("mini", "--output", tmp_path)
    assert not tmp_path.with_suffix(".png").exists()
    assert run_check("mini")[1].split("towers")[0].splitlines() == page.split("towers")[0].splitlines()


def test_fingerprints_are_the_same_again_and_tell_weights_apart():
    model = err_seg.load("mini", device="cpu")
    prints = model_check.fingerprints(model)
    assert prints == model_check.fingerprints(model)
    with torch.no_grad():
        model.head.gud.head.weight *= 1.1
    other = model_check.fingerprints(model)
    assert {part for part in prints if prints[part] != other[part]} == {"logits of GUD"}


def test_towers_that_do_not_belong_together_are_found(run_check, tmp_path):
    def mix_up(state):
        name = "encoder.clip.text.text_projection"
        name = name if name in state else "encoder.clip.text_projection"
        state[name] = state[name][:, torch.randperm(state[name].shape[1], generator=torch.manual_seed(0))]

    changed(err_seg.load("mini", device="cpu"), tmp_path / "mixed.safetensors", mix_up)
    status, page, _ = run_check("mixed.safetensors", "--config-file", "mini")
    assert status == 1
    assert "PROBLEM: at least 80% was expected: text and image tower" in page
    assert "--classes" not in page, "no photo was given"
    assert page.endswith("1 problem\n")


def test_numbers_that_are_not_finite_are_found(run_check, tmp_path):
    def break_one(state):
        state["head.gud.head.bias"][:] = torch.nan

    def enlarge_one(state):
        state["head.gud.head.weight"] *= 1e38

    changed(err_seg.load("mini", device="cpu"), tmp_path / "broken.safetensors", break_one)
    status, _, error = run_check("broken.safetensors", "--config-file", "mini")
    assert status == 2
    assert "broken.safetensors holds NaN or infinity in 1 of 245 entries" in error
    assert "head.gud.head.bias" in error
    changed(err_seg.load("mini", device="cpu"), tmp_path / "huge.safetensors", enlarge_one)
    status, page, _ = run_check("huge.safetensors", "--config-file", "mini")
    assert status == 1
    assert "PROBLEM: logits of GUD is not finite" in page
    assert page.endswith("1 problem\n")


def test_a_model_without_a_photo_of_its_words_says_what_was_left_out(run_check, toy_model, tmp_path):
    torch.save(
        {"model": {f"network.{name}": value for name, value in toy_model().state_dict().items()}, "iteration": 7},
        tmp_path / "toy.pth",
    )
    status, page, _ = run_check("toy.pth", "--config-file", "mini", "--opts", *TOY)
    assert "towers      not checked" in page
    assert "not used    iteration" in page
    assert " network.encoder.* -> encoder.*" in page
    assert status == 0


def test_rules_sum_up_names():
    names = {
        "a.layers.0.x.weight": "b.blocks.0.x.weight",
        "a.layers.1.x.weight": "b.blocks.1.x.weight",
        "head.gud.bias": "head.gud.bias",
    }
    assert model_check.renaming_rules(names) == [("a.layers", "b.blocks", 2), ("head.gud", "head.gud", 1)]


def test_what_cannot_be_used_is_one_line(run_check, tmp_path):
    for arguments in (["no-such-model"], ["mini", "missing.png", "--classes", "red circle"]):
        status, page, error = run_check(*arguments)
        assert (status, page) == (2, "")
        assert error.startswith("error: ")
    for arguments in (["mini", "photo.png"], ["mini", "--output", "page.png"]):
        with pytest.raises(SystemExit):
            run_check(*arguments)
