"""What the README shows works: its Python runs and its YAML loads; test_docs.py checks the rest of what it says."""

import shutil

import numpy as np
from PIL import Image

import err_seg
from tests.helpers.documents import blocks
from tests.helpers.toy import REPOSITORY, TOY

README = (REPOSITORY / "README.md").read_text(encoding="utf-8")


def test_python_runs(tmp_path, monkeypatch, toy_model):
    """The first screen, on a toy network with random weights in the place of the released ones."""
    Image.fromarray(np.zeros((40, 60, 3), dtype=np.uint8)).save(tmp_path / "photo.jpg")
    (tmp_path / "docs").mkdir()
    shutil.copy(REPOSITORY / "docs/scene.png", tmp_path / "docs")
    toy = toy_model()
    err_seg.save_weights(toy, tmp_path / "model_final.safetensors")
    get_cfg, load = err_seg.get_cfg, err_seg.load

    def toy_cfg(file, overrides):
        get_cfg(REPOSITORY / file, overrides)  # the real one must exist
        weights = dict(zip(overrides[::2], overrides[1::2], strict=True))["MODEL.WEIGHTS"]
        assert weights == "model_final.pth"
        return get_cfg(None, [*TOY, "MODEL.WEIGHTS", str(tmp_path / "model_final.safetensors")])

    monkeypatch.setattr(err_seg, "get_cfg", toy_cfg)
    monkeypatch.setattr(err_seg, "load", lambda name: load(name) if name == "mini" else toy)
    monkeypatch.chdir(tmp_path)
    scripts = [block for block in blocks(README, "python") if "detectron2" not in block]  # those: tests/d2
    assert len(scripts) == 3
    for script in scripts:
        names: dict = {}
        exec(script, names)
        size = (192, 192) if "mini" in script and "get_cfg" not in script else (40, 60)
        assert names["out"].labels.shape == size
        if "save(" in script:
            labelled = Image.open(tmp_path / "labelled.png")
            assert labelled.width >= 480
    assert names["out"].dense().shape == (3, 40, 60)


def test_the_first_picture_is_what_its_lines_make():
    """It must show the right names, on any processor."""
    (script,) = [block for block in blocks(README, "python") if 'load("mini").predict' in block]
    names: dict = {}
    exec(script.replace("docs/", f"{REPOSITORY}/docs/").replace('out.save("labelled.png")', ""), names)
    shown = {region.name for region in names["out"].regions(min_area=200)}
    assert shown == set(names["words"])


def test_yaml_loads(tmp_path):
    scripts = blocks(README, "yaml")
    assert scripts
    for script in scripts:
        (tmp_path / "example.yaml").write_text(script.replace("_BASE_: ", f"_BASE_: {REPOSITORY}/configs/"))
        assert err_seg.get_cfg(tmp_path / "example.yaml").DATASETS.TEST == ["my_streets"]
