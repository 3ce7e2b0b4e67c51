"""What the README shows works: its Python runs and its YAML loads; test_docs.py checks the rest of what it says."""

import numpy as np
from conftest import REPOSITORY, TOY
from documents import blocks
from PIL import Image

import err_seg

README = (REPOSITORY / "README.md").read_text(encoding="utf-8")


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
    scripts = [block for block in blocks(README, "python") if "detectron2" not in block]  # those: tests/d2
    assert scripts
    for script in scripts:
        names: dict = {}
        exec(script, names)
        assert names["out"].labels.shape == (40, 60)
        assert names["out"].dense().shape == (3, 40, 60)


def test_yaml_loads(tmp_path):
    scripts = blocks(README, "yaml")
    assert scripts
    for script in scripts:
        (tmp_path / "example.yaml").write_text(script.replace("_BASE_: ", f"_BASE_: {REPOSITORY}/configs/"))
        assert err_seg.get_cfg(tmp_path / "example.yaml").DATASETS.TEST == ["my_streets"]
