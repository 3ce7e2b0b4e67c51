"""What the README says works: its Python runs, its YAML loads, its commands exist with the options it names."""

import functools
import os
import re
import shlex
import subprocess
import sys

import numpy as np
import pytest
from conftest import REPOSITORY, TOY
from PIL import Image

import err_seg

README = (REPOSITORY / "README.md").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


COMMANDS = [line for block in blocks("bash") for line in block.splitlines() if line.strip()]


def test_python_runs(tmp_path, monkeypatch, toy_model):
    """The first screen, on a toy network with random weights in the place of the released ones."""
    Image.fromarray(np.zeros((40, 60, 3), dtype=np.uint8)).save(tmp_path / "photo.jpg")
    err_seg.save_weights(toy_model(), tmp_path / "model_final.safetensors")
    get_cfg = err_seg.get_cfg

    def toy_cfg(file, overrides):
        get_cfg(REPOSITORY / file, overrides)  # the real one must exist
        weights = dict(zip(overrides[::2], overrides[1::2], strict=True))["MODEL.WEIGHTS"]
        assert weights == "model_final.pth"
        return get_cfg(None, [*TOY, "MODEL.WEIGHTS", str(tmp_path / "model_final.safetensors")])

    monkeypatch.setattr(err_seg, "get_cfg", toy_cfg)
    monkeypatch.chdir(tmp_path)
    scripts = blocks("python")
    assert scripts
    for script in scripts:
        names: dict = {}
        exec(script, names)
        assert names["out"][0].labels.shape == (40, 60)
        assert names["out"][0].dense().shape == (3, 40, 60)


def test_yaml_loads(tmp_path):
    scripts = blocks("yaml")
    assert scripts
    for script in scripts:
        (tmp_path / "example.yaml").write_text(script.replace("_BASE_: ", f"_BASE_: {REPOSITORY}/configs/"))
        assert err_seg.get_cfg(tmp_path / "example.yaml").DATASETS.TEST == ["my_streets"]


@functools.cache
def help_of(script):
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, script, "--help"]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_exist(command):
    words = shlex.split(command, comments=True)
    if words[0] in ("pip", "source"):  # of what setup.py and scripts/setup.sh make
        assert (REPOSITORY / "setup.py").is_file()
        return
    script = REPOSITORY / words[1]
    assert script.is_file(), command
    if words[0] == "bash":
        subprocess.run(["bash", "-n", script], check=True)
        return
    usage = help_of(script)
    for word in words[2:]:
        if word.startswith("--"):
            assert word in usage, f"{script.name} has no option {word}"
    if "--config-file" in words:
        after = words[words.index("--config-file") + 2 :]
        keys = [i for i, word in enumerate(after) if re.fullmatch(r"[A-Z_]+(\.[A-Z0-9_]+)+", word)]
        overrides = [word for i in keys for word in after[i : i + 2]]
        err_seg.get_cfg(REPOSITORY / words[words.index("--config-file") + 1], overrides)


def test_links_lead_somewhere():
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert "://" in target or (REPOSITORY / target).exists(), target


def test_named_files_exist():
    for name in re.findall(r"`((?:configs|err_seg|tools|scripts|datasets)/[\w/.]+)`", README):
        assert (REPOSITORY / name).exists(), name
