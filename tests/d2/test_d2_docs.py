"""What README.md and docs/detectron2.md show of detectron2 does what they say."""

import re

import numpy as np
import pytest
from PIL import Image

import err_seg
from err_seg.commands.train import choose_engine
from err_seg.config import ConfigError
from err_seg.models.checkpoint import save_weights
from tests.helpers.processes import hide_detectron2
from tests.helpers.toy import REPOSITORY, TOY

pytestmark = pytest.mark.d2
PAGE = (REPOSITORY / "README.md").read_text(encoding="utf-8")


def test_install_line_is_the_one_of_the_error(monkeypatch):
    hide_detectron2(monkeypatch)
    with pytest.raises(ConfigError) as told:
        choose_engine("detectron2")
    install = re.search(r"pip install .*?detectron2\.git@\w{40}'", str(told.value))[0]
    assert install in PAGE.splitlines()


def test_ten_lines(tmp_path, monkeypatch):
    pytest.importorskip("err_seg.d2", exc_type=ImportError)
    program = next(block for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL) if "cv2" in block)
    assert program.count("\n") <= 13
    cfg = err_seg.get_cfg(None, TOY)
    model = err_seg.build_model(cfg)
    save_weights(model, tmp_path / "model_final.safetensors")
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs/err_seg_convnext_b.yaml").write_text(cfg.dump())
    image = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    Image.fromarray(image).save(tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    exec(program.replace('"model_final.pth"', '"safetensors:model_final.safetensors"'), {})
    assert Image.open(tmp_path / "photo_labels.png").size == (64, 48)


def test_program_that_trains(run_cfg, tmp_path):
    pytest.importorskip("err_seg.d2", exc_type=ImportError)
    from err_seg.d2 import to_detectron2

    page = (REPOSITORY / "docs/detectron2.md").read_text(encoding="utf-8")
    program = next(block for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "Trainer(cfg)" in block)
    exec(program, {"cfg": to_detectron2(run_cfg("SOLVER.MAX_ITER", 2, "VIS_PERIOD", 2))})
    files = ("checkpoints/iter_0000002/training.pt", "model_final.safetensors", "metrics.json", "results.json")
    for file in (*files, "vis/iter_0000002.png"):
        assert (tmp_path / "out" / file).is_file()
