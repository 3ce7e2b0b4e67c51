"""Corrupted images, of which the package imagecorruptions makes the real ones where it is installed."""

import sys
from importlib.util import find_spec
from types import ModuleType

import numpy as np
import pytest
import torch

from err_seg.config import ConfigError
from err_seg.config.constants import CORRUPTIONS
from err_seg.data import EvaluationTransform
from err_seg.data.corruptions import corrupt
from err_seg.engine import evaluate
from err_seg.evaluation.predictors import FunctionPredictor
from err_seg.evaluation.tta import evaluation_transform

IMAGE = np.random.default_rng(0).integers(0, 256, (40, 48, 3), dtype=np.uint8)


@pytest.fixture
def package(monkeypatch):
    """A package in place of imagecorruptions, which adds noise of the severity."""

    def add_noise(image, severity, name, seed=None):
        noise = np.random if seed is None else np.random.default_rng(seed)
        return np.uint8(np.clip(image + noise.uniform(0, 40 * severity, image.shape), 0, 255))

    module = ModuleType("imagecorruptions")
    module.__spec__ = "stands for it"
    module.corrupt = add_noise
    monkeypatch.setitem(sys.modules, "imagecorruptions", module)


@pytest.mark.usefixtures("package")
@pytest.mark.parametrize("name", ["fog", "glass_blur"])
def test_an_image_is_always_corrupted_in_the_same_way(name):
    np.random.seed(7)  # noqa: NPY002
    before = np.random.get_state()[1].tolist()  # noqa: NPY002
    first, other = corrupt(IMAGE, name, 2), corrupt(IMAGE, name, 3)
    assert np.random.get_state()[1].tolist() == before, "other code draws what it would have drawn"  # noqa: NPY002
    np.random.seed(8)  # noqa: NPY002
    np.testing.assert_array_equal(corrupt(IMAGE, name, 2), first)
    assert not np.array_equal(first, other)
    assert not np.array_equal(corrupt(IMAGE + 1, name, 2) - first, np.ones_like(first))


@pytest.mark.usefixtures("package")
def test_the_image_is_corrupted_before_it_is_resized():
    transform = EvaluationTransform(20, corruption=("fog", 1))
    expected = EvaluationTransform(20)(corrupt(IMAGE, "fog", 1))
    torch.testing.assert_close(transform(IMAGE), expected, rtol=0, atol=0)
    with pytest.raises(ValueError, match="an image of 48x20 pixels cannot be corrupted; it needs 32 pixels a side"):
        transform(IMAGE[:20])


@pytest.mark.usefixtures("package")
def test_network_and_functions_see_the_same_corrupted_images(run_cfg, tmp_path, monkeypatch):
    cfg = run_cfg("TEST.CORRUPTION.NAME", "fog", "TEST.CORRUPTION.SEVERITY", 4)
    assert evaluation_transform(cfg).corruption == ("fog", 4)
    seen = []
    (tmp_path / "mine.py").write_text(
        "def segment(image, names):\n    seen.append(image)\n    return image[..., 0] * 0\n"
    )
    predictor = FunctionPredictor(cfg, f"{tmp_path / 'mine.py'}:segment")
    monkeypatch.setitem(predictor.function.__globals__, "seen", seen)
    (result,) = evaluate(cfg, predictor)
    assert result.settings["corruption"] == "fog, severity 4"
    predictor = FunctionPredictor(run_cfg(), f"{tmp_path / 'mine.py'}:segment")
    assert "corruption" not in predictor.settings(None)
    assert predictor.transform.corruption is None
    clean = run_cfg("TEST.CORRUPTION.NAME", "")
    monkeypatch.setitem(predictor.function.__globals__, "seen", own := [])
    clean.OUTPUT_DIR = str(tmp_path / "clean")
    evaluate(clean, predictor)
    for corrupted, image in zip(seen, own, strict=True):
        np.testing.assert_array_equal(corrupted, corrupt(image, "fog", 4))


def test_without_the_package_an_evaluation_does_not_begin(run_cfg, monkeypatch):
    monkeypatch.setattr("err_seg.data.corruptions.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"needs the package.*pip install 'err_seg\[corruptions\]'"):
        evaluation_transform(run_cfg("TEST.CORRUPTION.NAME", "fog"))
    with pytest.raises(ConfigError, match=r"TEST\.CORRUPTION\.SEVERITY must be in 1\.\.5"):
        run_cfg("TEST.CORRUPTION.SEVERITY", 6)


@pytest.mark.skipif(find_spec("imagecorruptions") is None, reason="imagecorruptions is not installed")
def test_all_fifteen_of_the_package():
    from imagecorruptions import get_corruption_names

    assert tuple(get_corruption_names()) == CORRUPTIONS
    for name in CORRUPTIONS:
        mild, strong = corrupt(IMAGE, name, 1), corrupt(IMAGE, name, 5)
        assert mild.dtype == np.uint8
        assert mild.shape == IMAGE.shape
        np.testing.assert_array_equal(corrupt(IMAGE, name, 5), strong, err_msg=name)
        assert not np.array_equal(mild, strong)
