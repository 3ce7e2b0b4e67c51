"""Training without some classes of the vocabulary, whose pixels are ignored or background."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import err_seg
from err_seg.config import ConfigError
from err_seg.data import register, spec_from_dict, unregister
from err_seg.engine import train
from tests.helpers.toy import VOCABULARY
from tests.helpers.training import assert_same_weights, declaration, lines, metrics, run

GONE = ("sky", "sofa, couch")
KEPT = [name for name in VOCABULARY if name not in GONE]
IGNORED_APART = ("MODEL.LOSS.IGNORED_ARE_NEGATIVES", False)


@pytest.fixture
def left_out_cfg(run_cfg, toy_world, tmp_path):
    """Return a function from overrides and ``left_out_as`` to a run without two classes.

    "rewritten" stands for the same images with label files that lack the two.
    """
    folder = tmp_path / "rewritten"
    shutil.copytree(Path(toy_world[0]["image_dir"]).parent, folder)
    table = np.full(256, 255, np.uint8)
    table[[VOCABULARY.index(name) for name in KEPT]] = range(len(KEPT))
    for file in (folder / "labels").iterdir():
        Image.fromarray(table[np.array(Image.open(file))]).save(file)
    entries = {
        way: {**toy_world[0], "name": f"toy_{way}", "left_out": ["sky", "sofa"], "left_out_as": way}
        for way in ("ignored", "background")
    }
    entries["rewritten"] = {**declaration(tmp_path, "rewritten", KEPT), "name": "toy_rewritten"}
    for entry in entries.values():
        register(spec_from_dict(entry))

    def cfg(way, *overrides):
        out = ("OUTPUT_DIR", str(tmp_path / f"out_{way}"), "DATASETS.TRAIN", [f"toy_{way}"], "SOLVER.MAX_ITER", 3)
        return run_cfg(*out, *overrides)

    yield cfg
    for entry in entries.values():
        unregister(entry["name"])


def weights(tmp_path, way):
    return tmp_path / f"out_{way}" / "model_final.safetensors"


def test_ignored_classes_train_as_if_the_files_lacked_them(left_out_cfg, tmp_path):
    for way in ("ignored", "rewritten"):
        run(left_out_cfg(way, *IGNORED_APART))
    assert_same_weights(weights(tmp_path, "ignored"), weights(tmp_path, "rewritten"))
    assert lines(tmp_path / "out_ignored") == lines(tmp_path / "out_rewritten")


def test_background_is_what_ignored_pixels_are_where_these_are_negatives(left_out_cfg, tmp_path):
    for way in ("background", "rewritten"):
        run(left_out_cfg(way))
    assert_same_weights(weights(tmp_path, "background"), weights(tmp_path, "rewritten"))


def test_background_counts_where_ignored_pixels_do_not(left_out_cfg, tmp_path):
    """Pixels of the two classes are in the loss, those with the ignore label are not; parts of a batch agree."""
    options = (*IGNORED_APART, "MODEL.ESCF.DROP_PATH", 0.0, "VIS_PERIOD", 3)
    losses = {}
    for way in ("background", "ignored"):
        run(left_out_cfg(way, *options))
        losses[way] = metrics(tmp_path / f"out_{way}", "total_loss")
    assert losses["background"][0] != pytest.approx(losses["ignored"][0], rel=1e-3)
    assert len(list((tmp_path / "out_background/vis").iterdir())) == 1
    whole = losses["background"]
    run(left_out_cfg("background", *options, "SOLVER.ACCUMULATION_STEPS", 2))
    assert metrics(tmp_path / "out_background", "total_loss")[0] == pytest.approx(whole[0], rel=1e-5)


def test_ignoring_classes_that_would_be_negatives_is_refused_before_anything_is_written(left_out_cfg, tmp_path):
    cfg = left_out_cfg("ignored")
    complaint = r"IGNORED_ARE_NEGATIVES is True.*'toy_ignored'.*set it to False, or left_out_as: background"
    with pytest.raises(ConfigError, match=complaint):
        train(cfg, err_seg.build_model(cfg))
    assert not [path for path in (tmp_path / "out_ignored").rglob("*") if not path.name.startswith(".")]


def test_the_vocabulary_stays_whole_in_evaluation(left_out_cfg, tmp_path):
    run(left_out_cfg("background", "DATASETS.TEST", ["toy_background"], "TEST.EVAL_PERIOD", 3))
    (line,) = [line for line in lines(tmp_path / "out_background") if "sem_seg/mIoU" in line]
    seen, unseen = line["sem_seg/mIoU-seen"], line["sem_seg/mIoU-unseen"]
    assert line["sem_seg/mIoU"] == pytest.approx((5 * seen + 2 * unseen) / 7)
    assert "sem_seg/hIoU" in line
