"""Loading, overriding and validating configurations."""

import pytest
import torch
from conftest import REPOSITORY
from fvcore.common.config import CfgNode

import err_seg
from err_seg.config import ConfigError
from err_seg.defaults import default_cfg

# (configs/ablations holds sweeps: tests/sweeps)
SHIPPED = sorted(file for file in REPOSITORY.glob("configs/**/*.yaml") if file.parent.name != "ablations")


def test_overrides_as_values_and_as_text():
    cfg = err_seg.get_cfg(None, ["INPUT.SIZE", 320, "SOLVER.BASE_LR", "1e-3", "MODEL.HSM.ENABLED", "False"])
    assert cfg.INPUT.SIZE == 320
    assert cfg.SOLVER.BASE_LR == 1e-3
    assert cfg.MODEL.HSM.ENABLED is False
    cfg = err_seg.get_cfg(None, ["SOLVER.BASE_LR", "1", "MODEL.GUD.DIMS", "(64, 32, 8)", "OUTPUT_DIR", "123"])
    assert cfg.SOLVER.BASE_LR == 1.0
    assert cfg.MODEL.GUD.DIMS == [64, 32, 8]
    assert cfg.OUTPUT_DIR == "123"


@pytest.mark.parametrize(
    ("overrides", "complaint"),
    [
        (["MODEL.CRM.NUM_KEEP", 8], r"MODEL\.CRM\.NUM_KEEP .*did you mean MODEL\.CRM\.NUM_KEPT\?"),
        (["NUM_RANKS", 8], r"did you mean MODEL\.CRM\.NUM_RANKS"),
        (["MODEL.CRM", 8], r"MODEL\.CRM"),
        (["INPUT.SIZE"], "no value"),
        (["INPUT.SIZE", "large"], r"INPUT\.SIZE .*int.*'large'"),
        (["INPUT.SIZE", 650], r"INPUT\.SIZE must be a positive multiple of 32, not 650"),
        (["INPUT.SIZE", True], r"INPUT\.SIZE"),
        (["MODEL.CLIP.TEXT_TUNING", "weights"], "'none', 'weight', 'full'"),
        (["MODEL.GUD.KERNEL_SIZE", 4], "odd"),
        (["MODEL.GUD.DIMS", [64, 32]], "3 multiples of 8"),
        (["MODEL.ESCF.SSR_RATIO", 3], r"divisor of the grid's side 40"),
        (["MODEL.ESCF.NUM_HEADS", 5], r"MODEL\.COST_EMBEDDING\.DIM = 128"),
        (["MODEL.CRM.NUM_RANKS", 0], "positive"),
        (["MODEL.TEXT.TEMPLATES", "a photo of a {}"], "list"),
        (["MODEL.GUD.DIMS", "[64, 'a', 16]"], r"each entry of MODEL\.GUD\.DIMS .*int"),
    ],
)
def test_refused_with_the_keys_name(overrides, complaint):
    with pytest.raises(ConfigError, match=complaint):
        err_seg.get_cfg(None, overrides)


def test_files_inherit_and_are_refused_by_name(tmp_path):
    (tmp_path / "base.yaml").write_text("INPUT:\n  SIZE: 320\n  CROP_SIZE: 320\n")
    (tmp_path / "delta.yaml").write_text("_BASE_: base.yaml\nINPUT:\n  SIZE: 96\n")
    cfg = err_seg.get_cfg(tmp_path / "delta.yaml")
    assert (cfg.INPUT.SIZE, cfg.INPUT.CROP_SIZE) == (96, 320)
    (tmp_path / "wrong.yaml").write_text("MODEL:\n  CMR:\n    NUM_KEPT: 3\n")
    with pytest.raises(ConfigError, match=r"MODEL\.CMR\.NUM_KEPT \(.*wrong\.yaml\); did you mean MODEL\.CRM\.NUM_KEPT"):
        err_seg.get_cfg(tmp_path / "wrong.yaml")
    (tmp_path / "broken.yaml").write_text("MODEL: [")
    with pytest.raises(ConfigError, match=r"broken\.yaml"):
        err_seg.get_cfg(tmp_path / "broken.yaml")
    with pytest.raises(ConfigError, match=r"missing\.yaml.*base\.yaml"):
        err_seg.get_cfg(tmp_path / "missing.yaml")


def test_a_file_cannot_run_anything(tmp_path):
    (tmp_path / "evil.yaml").write_text(f"OUTPUT_DIR: !!python/object/apply:os.mkdir ['{tmp_path}/made']\n")
    with pytest.raises(ConfigError):
        err_seg.get_cfg(tmp_path / "evil.yaml")
    assert not (tmp_path / "made").exists()


def test_dumped_configuration_loads_again(tmp_path):
    cfg = err_seg.get_cfg(REPOSITORY / "configs" / "err_seg_convnext_l.yaml", ["SEED", 3])
    (tmp_path / "config.yaml").write_text(cfg.dump())
    assert err_seg.get_cfg(tmp_path / "config.yaml") == cfg


def test_every_key_is_documented():
    """Each line that defines a key, or its group of lines, stands under a comment."""
    lines = (REPOSITORY / "err_seg" / "defaults.py").read_text().splitlines()
    keys = [i for i, line in enumerate(lines) if line.startswith("    cfg.") and "CfgNode()" not in line]
    assert len(keys) > 50
    names = {
        "META_ARCHITECTURE",
        "NUM_LAYERS",
        "NUM_HEADS",
        "NUM_WORKERS",
        "MAX_ITER",
        "OUTPUT_DIR",
    }  # say it themselves
    for i in keys:
        above = i
        while lines[above].startswith("    cfg.") and "CfgNode()" not in lines[above]:
            above -= 1
        described = lines[above].strip().startswith("#")
        assert described or lines[i].split("=")[0].strip().split(".")[-1] in names, lines[i]


def test_same_class_as_detectron2s_parent():
    assert isinstance(default_cfg(), CfgNode)


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: str(file.relative_to(REPOSITORY)))
def test_every_shipped_configuration_builds(file):
    assert file.read_text().startswith("# "), "a configuration opens by saying what it is"
    cfg = err_seg.get_cfg(file, ["MODEL.CLIP.PRETRAINED", "", "MODEL.DEVICE", "meta"])
    with torch.device("meta"):
        model = err_seg.build_model(cfg)
    assert sum(parameter.numel() for parameter in model.parameters()) > 0
