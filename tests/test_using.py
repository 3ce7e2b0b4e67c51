"""docs/using.md works: its Python and its predictions run, on a toy network in the place of the others."""

import io
import re
import shlex
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from PIL import Image

import err_seg
from err_seg.commands import main, models
from err_seg.export import save_vocabulary
from err_seg.models import hub
from err_seg.prediction.calibration import Calibration
from tests.helpers.documents import blocks, commands
from tests.helpers.toy import REPOSITORY

USING = (REPOSITORY / "docs/using.md").read_text(encoding="utf-8")
EXTRAS = {"fiftyone": "fiftyone", "ray": "ray", "err-seg export": "onnxscript", "bands": "rasterio"}
"""What a block names, and the library without which it is left out."""
NOT_RUN = (
    "err-seg calibrate",
    "err-seg mini",
    "err-seg train ",
    "python -m tools.studies.",
    "pip ",
    "cp ",
    "hf ",
    "torchrun ",
    "cat ",
    "err-seg web ",
    "err-seg check ",
    "python examples/run_exported.py ",
)
"""Installation; and what other tests run: several processes, the server, the check, the exported file, the lab."""


def is_possible(text):
    """Whether the libraries that a block needs are there."""
    return all(find_spec(library) for word, library in EXTRAS.items() if re.search(rf"\b{word}\b", text))


@pytest.fixture
def folder(tmp_path, monkeypatch, toy, toy_weights):
    """A folder with all files that the page names; all models are the toy network."""
    random = np.random.default_rng(0)
    for name in ("photo.jpg", "other.jpg", "map.png", "holiday/beach.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(random.integers(0, 256, (40, 60, 3), dtype=np.uint8)).save(tmp_path / name)
    mask = Image.fromarray(np.eye(40, 60, dtype=np.uint8))
    mask.save(tmp_path / "photo_mask.png")
    (tmp_path / "shown/part 17").mkdir(parents=True)
    mask.save(tmp_path / "shown/part 17/1_mask.png")
    Image.fromarray(random.integers(0, 256, (40, 60, 3), dtype=np.uint8)).save(tmp_path / "shown/part 17/1.png")
    (tmp_path / "clips").mkdir()
    video = cv2.VideoWriter(str(tmp_path / "clips/clip.mp4"), cv2.VideoWriter_fourcc(*"mp4v"), 10, (60, 40))
    for _ in range(2):
        video.write(random.integers(0, 256, (40, 60, 3), dtype=np.uint8))
    video.release()
    if find_spec("rasterio"):
        import rasterio

        profile = {"driver": "GTiff", "width": 60, "height": 40, "count": 4, "dtype": "uint16"}
        with rasterio.open(tmp_path / "map.tif", "w", transform=rasterio.Affine(1, 0, 9, 0, -1, 9), **profile) as file:
            file.write(random.integers(0, 3000, (4, 40, 60)).astype(np.uint16))
    save_vocabulary(toy, ["cat"], tmp_path / "err_seg.npz", contrast=["wall", "sofa"])
    (tmp_path / "words.txt").write_text("cat\nsofa, couch\nwall\n")
    (tmp_path / "words.yaml").write_text(next(iter(blocks(USING, "yaml"))))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(toy, "calibration", Calibration(0.8, 0.1, "my_streets_val", 9))
    monkeypatch.setattr(err_seg, "load", lambda name, **options: toy)
    # uploading and fetching: tests/test_repositories.py
    monkeypatch.setattr(err_seg.ERRSeg, "from_pretrained", lambda name, **options: toy)
    monkeypatch.setattr(err_seg.ERRSeg, "push_to_hub", lambda self, name: None)
    monkeypatch.setattr(models, "load_model", lambda arguments: toy)
    monkeypatch.setattr(hub, "load", lambda name, **options: toy)
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO((tmp_path / "photo.jpg").read_bytes())))
    return tmp_path


class Dataset:
    """The part of FiftyOne's data sets that the page uses."""

    def apply_model(self, model, label_field, batch_size):
        """Label some images."""
        masks = [label.mask for label in model.predict_all([np.zeros((30, 40, 3), np.uint8)] * batch_size)]
        assert set(np.unique(masks)) <= set(self.default_mask_targets)


def test_python(folder):
    names = {"folder": folder, "array": np.random.default_rng(0).random((30, 40, 3)), "cv2": cv2, "dataset": Dataset()}
    names["frames"] = list(np.random.default_rng(0).integers(0, 256, (3, 30, 40, 3), dtype=np.uint8))
    names |= {"kept": np.array([[0, 2]]), "maps": [np.eye(2), np.full((2, 2), 0.5)]}  # of an exported file
    scripts = [script for script in blocks(USING, "python") if is_possible(script) and "ray" not in script]
    assert len(scripts) >= 4
    for script in scripts:
        exec(compile(script, "docs/using.md", "exec"), names)
    for file in ("photo_overlay.png", "photo_labels.png", "photo.json", "photo.geojson"):
        assert Path(file).stat().st_size > 50
    assert names["labels"].tolist() == [[0, -1], [-1, 0]]


def test_the_example_reads_an_exported_file_as_the_page_says():
    example = (
        (REPOSITORY / "examples/run_exported.py")
        .read_text(encoding="utf-8")
        .replace("arguments.vocabulary", '"err_seg.npz"')
    )
    (block,) = [block for block in blocks(USING, "python") if "np.load" in block]
    assert set(block.splitlines()) - {""} <= set(example.splitlines())


COMMANDS = [line for block in blocks(USING, "bash") for line in commands(f"```bash\n{block}```")]


@pytest.mark.parametrize("line", [line for line in COMMANDS if not line.startswith(NOT_RUN)])
def test_commands(folder, line, capsys):
    if not is_possible(line):
        pytest.skip("needs an extra")
    program, *arguments = shlex.split(line)
    assert program == "err-seg"
    assert main(arguments) == 0, capsys.readouterr().err
