"""The calibration in files of weights: read, kept, shown, and refused where it is damaged."""

from dataclasses import asdict

import pytest
import torch
from safetensors.torch import save_file

import err_seg
from err_seg.models import hub
from err_seg.models.checkpoint import open_checkpoint
from err_seg.prediction.calibration import Calibration
from tests.helpers.toy import VOCABULARY

CALIBRATION = Calibration(0.75, 0.1, "my_streets_val", 40, "ab" * 32)


@pytest.fixture
def saved(toy_model, toy_cfg, tmp_path):
    """Return a function from metadata to a file of the toy's weights."""

    def save(**metadata):
        file = tmp_path / "toy.safetensors"
        err_seg.save_weights(toy_model(), file, {"config": toy_cfg().dump(), **metadata})
        return file

    return save


def test_loading_reads_it_and_saving_keeps_it(saved, tmp_path, images):
    model = err_seg.load(saved(calibration=asdict(CALIBRATION)), device="cpu")
    assert model.calibration == CALIBRATION
    model.save_pretrained(tmp_path / "published")
    again = err_seg.ERRSeg.from_pretrained(tmp_path / "published", device="cpu")
    assert again.calibration == CALIBRATION
    card = (tmp_path / "published/README.md").read_text()
    assert (
        "## Confidence\n\n`out.confidence` is calibrated: temperature 0.750, offset 0.100, fitted on 40 images" in card
    )
    first, second = (each.predict(images[0], VOCABULARY).confidence for each in (model, again))
    assert torch.equal(first, second)


def test_files_without_one_load_as_before(saved, tmp_path):
    model = err_seg.load(saved(), device="cpu")
    assert model.calibration is None
    model.save_pretrained(tmp_path / "published")
    assert "calibration" not in open_checkpoint(tmp_path / "published/model.safetensors").metadata
    assert "## Confidence" not in (tmp_path / "published/README.md").read_text()


def test_loading_a_file_without_one_drops_it(saved):
    model = err_seg.load(saved(calibration=asdict(CALIBRATION)), device="cpu")
    err_seg.load_weights(model, saved())
    assert model.calibration is None


@pytest.mark.parametrize("damage", ["no JSON", '{"temperature": 0, "offset": 1}', '{"offset": 1}', "[1]", '{"x": 1}'])
def test_a_damaged_one_is_named(saved, damage):
    file = saved()
    weights = open_checkpoint(file)
    save_file(dict(weights.entries), file, metadata={**weights.metadata, "calibration": damage})
    with pytest.raises(err_seg.CheckpointError, match=r"toy.safetensors: the calibration stored in it cannot be read"):
        hub.load(file, device="cpu")
