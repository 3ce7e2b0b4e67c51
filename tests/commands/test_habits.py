"""Command lines as other programs take them: they work, or the error says how they are written here."""

import importlib
import re

import pytest

from err_seg.commands import predict, train
from err_seg.config import ConfigError, get_cfg
from err_seg.config.loading import override_pairs
from tests.helpers.predicting import save


def refusal(command, arguments, capsys):
    """Return the error with which a command refuses its arguments, before it does anything."""
    with pytest.raises(SystemExit) as leaving:
        importlib.import_module(f"err_seg.commands.{command}").main(arguments)
    assert leaving.value.code == 2
    return capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    ("arguments", "wrong", "right"),
    [
        (["--classes", "cat", "dog"], "dog", '--classes "cat, dog"'),
        (["a.png", "--classes", "cat", "dog", "sofa"], "dog", '--classes "cat, dog, sofa"'),
        (["--classes", "red star", "green circle", "a.png"], "green circle", '--classes "red star, green circle"'),
        (["--classes=cat", "dog", "a.png"], "dog", '--classes "cat, dog"'),
        (["--classes", "cat", "St. Bernard", "a.png"], "St. Bernard", '--classes "cat, St. Bernard"'),
        (["a.png", "--classes", "cat", "--background", "wall", "floor"], "floor", '--background "wall, floor"'),
    ],
)
def test_names_as_several_arguments(tmp_path, monkeypatch, capsys, arguments, wrong, right):
    monkeypatch.chdir(tmp_path)
    save(tmp_path / "a.png")
    error = refusal("predict", arguments, capsys)
    assert error == f"err-seg predict: error: no file {wrong!r}; names are one text, separated by commas: {right}"


@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        ("figures", ["grid", "a.png", "--classes", "cat", "dog"]),
        ("figures", ["attention", "--classes", "cat", "dog", "a.png"]),
        ("check", ["mini", "a.png", "--classes", "cat", "dog"]),
        ("export", ["a.onnx", "--classes", "cat", "dog"]),
        ("web", ["--classes", "cat", "dog"]),
    ],
)
def test_names_of_other_commands(command, arguments, capsys):
    assert refusal(command, arguments, capsys).endswith('separated by commas: --classes "cat, dog"')


def test_what_follows_the_names_may_be_images(run_predict, tmp_path, monkeypatch):
    """Of which one that does not exist is reported as ever, if it looks like a file."""
    monkeypatch.chdir(tmp_path)
    for name in ("a.png", "photos/b.png", "street"):
        save(tmp_path / name) if "." in name else (tmp_path / name).mkdir()
    save(tmp_path / "street/c.png")
    arguments = ["--classes", "cat, dog", "a.png", "photos/", "street", "*.png", "missing.png", "--format", "labels"]
    status, _, errors = run_predict(*arguments, classes=None)
    assert (status, "missing.png: no such file" in errors) == (1, True)
    assert sorted(file.name for file in (tmp_path / "out").rglob("*.png")) == [f"{name}_labels.png" for name in "abc"]


@pytest.mark.parametrize(
    ("option", "hint"),
    [
        ("--source", "INPUT, without an option"),
        ("--save-dir", "--output DIR"),
        ("--project", "--output DIR"),
        ("--text-prompts", '--classes "cat, dog"'),
        ("--labels", '--classes "cat, dog"'),
        ("--conf", "--background 0.3 "),
        ("--box_threshold", "--background 0.3 "),
        ("--imgsz", "--tile"),
        ("--half", "--precision fp16"),
    ],
)
def test_options_of_other_programs(capsys, option, hint):
    for given in ([option, "x"], [f"{option}=x"]):  # the words, which are required, are missing as well
        error = refusal("predict", ["a.png", *given], capsys)
        assert error.startswith(f"err-seg predict: error: there is no {option}; use {hint}")


def test_options_of_other_programs_elsewhere(capsys):
    for command in ("train", "evaluate"):
        for option, hint in (("--device", "MODEL.DEVICE cuda"), ("--imgsz", "INPUT.SIZE PIXELS")):
            assert f"use {hint}" in refusal(command, ["--config-file", "x", "SEED", "1", option, "3"], capsys)
    assert "use OUTPUT_DIR DIR" in refusal("train", ["--config-file", "x", "--save-dir", "x"], capsys)
    assert "use --output DIR" in refusal("mini", ["all", "--save-dir", "x"], capsys)
    assert "use --output DIR" in refusal("figures", ["attention", "a.png", "--save-dir", "x"], capsys)
    assert "unrecognized arguments: --conf" in refusal("train", ["--config-file", "x", "--conf", "3"], capsys)


def test_every_option_of_a_hint_exists(capsys):
    """In the commands that it is for; keys are those of the configuration."""
    from err_seg.config.defaults import KEYS
    from err_seg.config.habits import HABITS

    with pytest.raises(SystemExit):
        predict.main(["--help"])
    listed = capsys.readouterr().out
    for habit in HABITS.values():
        assert not habit.key or habit.key.split()[0] in KEYS
        for option in re.findall(r"--[\w-]+", habit.option):
            assert f"{option} " in listed
        assert habit.option.startswith(("--", "INPUT,")) or not habit.option


@pytest.mark.parametrize("name", ["train", "evaluate"])
def test_options_after_the_overrides(name):
    pairs, options = ["SOLVER.MAX_ITER", "2", "DATASETS.TEST", "[]"], ["--num-gpus", "2", "--engine", "plain"]
    for given in ([*pairs, *options], [*options, *pairs], [*pairs[:2], *options, *pairs[2:]]):
        arguments = train.parse_arguments(["--config-file", "x", *given], name)
        assert (arguments.opts, arguments.num_gpus, arguments.engine) == (pairs, 2, "plain")
    assert train.parse_arguments(["SEED", "2", "--config-file", "x", "--resume"]).resume


def test_options_after_the_overrides_of_a_model(tmp_path):
    arguments = ["a.png", "--classes", "cat", "--opts", "INPUT.SIZE", "64", "--device", "cpu", "--format", "labels"]
    parsed = predict.parse_arguments(arguments)
    assert (parsed.opts, parsed.device, parsed.format) == (["INPUT.SIZE", "64"], "cpu", ("labels",))


def test_an_option_among_overrides_is_explained(capsys):
    for overrides in (["SEED", "2", "--resume"], ["SEED", "2", "--num-gpus", "1"]):
        for read in (override_pairs, lambda given: get_cfg(None, given)):
            with pytest.raises(ConfigError, match=f"behind all options; '{overrides[2]}' is no key"):
                read(overrides)
    status = importlib.import_module("err_seg.commands.analyze").main(
        ["model", "--config-file", "mini/err_seg", "SEED", "2", "--num-kept", "3"]
    )
    assert (status, "behind all options; '--num-kept' is no key" in capsys.readouterr().err) == (1, True)
    assert dict(override_pairs(["OUTPUT_DIR", "--odd"])) == {"OUTPUT_DIR": "--odd"}
