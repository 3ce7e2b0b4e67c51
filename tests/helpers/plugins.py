"""Packages of own parts for tests: written on the spot, or the examples; forgotten after a test."""

import sys
from pathlib import Path

import pytest
import yaml

import err_seg
from err_seg import plugins
from err_seg.config import settings_of
from tests.helpers.toy import REPOSITORY

EXAMPLES = REPOSITORY / "examples/plugins"
NAMES = sorted(folder.parent.name for folder in EXAMPLES.glob("*/pyproject.toml"))
OF_THE_WORLD = ("_BASE_", "OUTPUT_DIR", "DATASETS", "SOLVER", "TEST.EVAL_PERIOD")


@pytest.fixture
def own_parts(monkeypatch):
    """Forget after a test what it has imported and registered."""
    for registry in vars(plugins).values():
        if isinstance(registry, plugins.Registry):
            monkeypatch.setattr(registry, "_parts", dict(registry._parts))
    monkeypatch.setattr(plugins, "_versions", {})
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        file = getattr(sys.modules[name], "__file__", None) or ""
        if not Path(file).is_relative_to(REPOSITORY / "err_seg") and "site-packages" not in file:
            del sys.modules[name]


@pytest.fixture
def package(own_parts, tmp_path, monkeypatch):
    """Return a function that writes a package of one module, and can be called several times."""
    folder = tmp_path / "packages"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)

    def write(name, text):
        (folder / f"{name}.py").write_text(text)
        return name

    return write


def example_settings(name):
    """Return what an example's configuration sets, as KEY VALUE pairs, but for what belongs to the miniature world."""
    file = EXAMPLES / name / "train.yaml"
    values = dict(settings_of(err_seg.get_cfg(file)))
    own = [key for key, _ in settings_of(yaml.safe_load(file.read_text())) if not key.startswith(OF_THE_WORLD)]
    return [part for key in own for part in (key, values[key])]


@pytest.fixture
def example(own_parts, monkeypatch):
    """Return a function that makes an example importable, and returns its settings for a toy network."""

    def use(name):
        monkeypatch.syspath_prepend(EXAMPLES / name)
        return example_settings(name)

    return use
