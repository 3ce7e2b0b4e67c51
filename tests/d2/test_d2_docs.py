"""What the README shows of detectron2 does what it says."""

import re

import numpy as np
import pytest
from conftest import REPOSITORY, TOY
from PIL import Image

import err_seg
from err_seg.checkpoint import save_weights
from err_seg.engine.choice import INSTALL_DETECTRON2

pytestmark = pytest.mark.d2
PAGE = (REPOSITORY / "README.md").read_text(encoding="utf-8")


def test_install_line_is_the_one_of_the_error():
    assert INSTALL_DETECTRON2 in PAGE.splitlines()


def test_ten_lines(tmp_path, monkeypatch):
    pytest.importorskip("detectron2", reason="detectron2 is not installed")
    pytest.importorskip("cv2", reason="OpenCV is not installed")
    program = next(block for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL) if "cv2" in block)
    assert program.count("\n") <= 13
    cfg = err_seg.get_cfg(None, TOY)
    model = err_seg.build_model(cfg)
    save_weights(model, tmp_path / "model_final.safetensors")
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs/err_seg_convnext_b.yaml").write_text(cfg.dump())
    picture = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    Image.fromarray(picture).save(tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    exec(program.replace('"model_final.pth"', '"safetensors:model_final.safetensors"'), {})
    assert Image.open(tmp_path / "photo_labels.png").size == (64, 48)
