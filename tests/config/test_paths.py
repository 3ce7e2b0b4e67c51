"""Paths in YAML files: beside the file that names them, else under DATASETS.ROOT or the working folder."""

import pytest

import err_seg
from err_seg.config import ConfigError
from err_seg.data import spec_from_dict

STREETS = """
DATASETS:
  ROOT: data
  CUSTOM:
    - {name: streets, image_dir: images, label_dir: labels, vocabulary: classes.txt}
    - {name: fields, image_dir: fields/images, label_dir: fields/labels, vocabulary: fields/classes.txt}
MODEL:
  WEIGHTS: trained.safetensors
  CLIP: {NAME: mini, PRETRAINED: openai}
"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    """Write a configuration with folders and files beside it, and work elsewhere."""
    folder = tmp_path / "project"
    for name in ("images", "labels", "data/fields/images", "data/fields/labels", "mini"):
        (folder / name).mkdir(parents=True)
    for name in ("classes.txt", "data/fields/classes.txt", "trained.safetensors"):
        (folder / name).write_text("road\nsky\n")
    (folder / "streets.yaml").write_text(STREETS)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    return folder


def test_what_lies_beside_the_file_is_found_from_anywhere(project):
    cfg = err_seg.get_cfg("../project/streets.yaml")
    streets, fields = cfg.DATASETS.CUSTOM
    assert [streets[key] for key in ("image_dir", "label_dir", "vocabulary")] == [
        str(project / name) for name in ("images", "labels", "classes.txt")
    ]
    assert (str(project / "data"), str(project / "trained.safetensors")) == (cfg.DATASETS.ROOT, cfg.MODEL.WEIGHTS)
    assert (fields["image_dir"], fields["label_dir"]) == ("fields/images", "fields/labels")  # under DATASETS.ROOT
    assert spec_from_dict(fields).vocabulary == ("road", "sky")  # likewise
    assert (cfg.MODEL.CLIP.NAME, cfg.MODEL.CLIP.PRETRAINED) == ("mini", "openai")  # a folder is no JSON file


def test_overrides_and_what_is_not_there_stay_as_they_are(project):
    cfg = err_seg.get_cfg("../project/streets.yaml", ["MODEL.WEIGHTS", "trained.safetensors"])
    assert cfg.MODEL.WEIGHTS == "trained.safetensors"
    (project / "trained.safetensors").unlink()
    assert err_seg.get_cfg("../project/streets.yaml").MODEL.WEIGHTS == "trained.safetensors"


def test_a_base_is_a_file_beside_or_a_shipped_name(project):
    (project / "mine.yaml").write_text("_BASE_: [mini/err_seg, streets.yaml]\nSEED: 5\n")
    cfg = err_seg.get_cfg("../project/mine.yaml")
    assert (cfg.SEED, cfg.INPUT.SIZE, cfg.MODEL.ESCF.NUM_LAYERS) == (5, 192, 2)
    assert str(project / "trained.safetensors") == cfg.MODEL.WEIGHTS
    (project / "mini/err_seg.yaml").write_text("SEED: 7\n")  # a file comes before a shipped name
    (project / "mine.yaml").write_text("_BASE_: mini/err_seg.yaml\n")
    assert err_seg.get_cfg("../project/mine.yaml").INPUT.SIZE == 640
    (project / "mine.yaml").write_text("_BASE_: mini/err_sge\n")
    with pytest.raises(
        ConfigError, match=r"mine\.yaml is not a usable .* no configuration file .*mini/err_sge; .*shipped"
    ):
        err_seg.get_cfg("../project/mine.yaml")
