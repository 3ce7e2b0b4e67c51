"""Loading, overriding and validating configurations."""

import math
import re

import mypy.api
import open_clip
import pytest
import torch
from fvcore.common.config import CfgNode

import err_seg
from err_seg.config import ConfigError
from err_seg.config.defaults import KEYS, default_cfg
from tests.helpers.toy import REPOSITORY

# (configs/ablations holds sweeps: tests/sweeps)
SHIPPED = sorted(file for file in REPOSITORY.glob("configs/**/*.yaml") if file.parent.name != "ablations")


def test_overrides_as_values_and_as_text():
    cfg = err_seg.get_cfg(None, ["INPUT.SIZE", 320, "SOLVER.BASE_LR", "1e-3", "MODEL.HSM.ENABLED", "False"])
    assert cfg.INPUT.SIZE == 320
    assert cfg.SOLVER.BASE_LR == 1e-3
    assert cfg.MODEL.HSM.ENABLED is False
    cfg = err_seg.get_cfg(None, ["SOLVER.CLIP_GRADIENTS.NORM_TYPE", "inf"])
    assert math.isinf(cfg.SOLVER.CLIP_GRADIENTS.NORM_TYPE)
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
        (["MODEL.GUD.DIMS", [64, 32]], "3 numbers, each a positive multiple of 8"),
        (["MODEL.ESCF.SSR_RATIO", 3], r"divisor of the grid's side 40"),
        (["MODEL.ESCF.NUM_HEADS", 5], r"MODEL\.COST_EMBEDDING\.DIM = 128"),
        (["MODEL.CRM.NUM_RANKS", 0], "positive"),
        (["SOLVER.BASE_LR", -1], r"SOLVER\.BASE_LR must be at least 0, not -1\.0"),
        (["SOLVER.BASE_LR", "float('nan')"], r"SOLVER\.BASE_LR"),
        (["SOLVER.BASE_LR", "nan"], r"SOLVER\.BASE_LR must be at least 0"),
        (["SOLVER.CLIP_GRADIENTS.CLIP_TYPE", "total"], r"CLIP_TYPE must be one of 'value', 'norm', 'full_model'"),
        (["SOLVER.CLIP_GRADIENTS.NORM_TYPE", "nan"], r"NORM_TYPE must be at least 1, or \.inf"),
        (["SOLVER.EMA.DECAY", 1.0], r"SOLVER\.EMA\.DECAY must be at least 0 and below 1"),
        (["TEST.BEST_METRIC", "IoU"], r"TEST\.BEST_METRIC must be one of 'mIoU'"),
        (["SOLVER.BETAS", [0.9, 1.0]], r"SOLVER\.BETAS must be a list of 2 numbers, each at least 0 and below 1"),
        (["SOLVER.COMPILE", "nonsense"], r"SOLVER\.COMPILE must be a backend of torch\.compile"),
        (
            ["TEST.COMPILE", "nonsense"],
            r"TEST\.COMPILE must be one of 'default', 'reduce-overhead', 'max-autotune', a back",
        ),
        (["INPUT.FLIP_PROB", 1.5], r"INPUT\.FLIP_PROB must be in 0\.\.1"),
        (["INPUT.MIN_SIZE_TRAIN", []], r"INPUT\.MIN_SIZE_TRAIN must be a list of numbers"),
        (["DATALOADER.NUM_WORKERS", -1], r"DATALOADER\.NUM_WORKERS must be at least 0"),
        (["OUTPUT_DIR", __file__], r"OUTPUT_DIR must be a folder, or where one can be made, not .*test_config\.py"),
        (["OUTPUT_DIR", f"{__file__}/below"], r"OUTPUT_DIR must be a folder"),
        (["MODEL.PIXEL_STD", [1.0, 0.0, 1.0]], r"MODEL\.PIXEL_STD"),
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


def test_shipped_files_are_known_by_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("err_seg_convnext_l", "mini/err_seg"):
        assert err_seg.get_cfg(name) == err_seg.get_cfg(REPOSITORY / "configs" / f"{name}.yaml")
    with pytest.raises(
        ConfigError, match=r"no configuration file err_seg_convnext_x.*shipped are err_seg_convnext_b, "
    ):
        err_seg.get_cfg("err_seg_convnext_x")


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
    """Each line that declares a key, or its group of lines, stands under a comment."""
    lines = (REPOSITORY / "err_seg" / "defaults.py").read_text().splitlines()
    declared = {i: match[1] for i, line in enumerate(lines) if (match := re.match(r" +([A-Z]\w*)\b.* = key\(", line))}
    assert list(declared.values()) == [key.split(".")[-1] for key in KEYS]
    say_it_themselves = {"META_ARCHITECTURE", "NUM_LAYERS", "NUM_HEADS", "MAX_ITER", "OUTPUT_DIR"}
    for i, name in declared.items():
        above = i
        while above in declared:
            above -= 1
        assert lines[above].strip().startswith("#") or name in say_it_themselves, name


def test_every_default_is_in_its_range_and_every_key_refuses_something():
    for key, (default, range_) in KEYS.items():
        assert range_.accepts(default), key
    free = {"MODEL.WEIGHTS", "MODEL.CLIP.PRETRAINED", "MODEL.DISTILL.WEIGHTS", "MODEL.TEXT.CACHE_DIR"}
    free |= {"DATASETS.ROOT", "LOG.WANDB_PROJECT"}
    wrong = {float: [-1.0, 2.0, float("nan")], int: [-32, 31], str: ["", "nonsense/"], list: [["nonsense{}{}"], [-1.0]]}
    for key, (default, range_) in KEYS.items():
        if type(default) is not bool:
            refused = [value for value in wrong[type(default)] if not range_.accepts(value)]
            assert bool(refused) == (key not in free), key


def test_the_type_checker_refuses_a_mistyped_key(tmp_path, monkeypatch):
    (tmp_path / "right.py").write_text(
        "from err_seg.config import Config\n\n\ndef right(cfg: Config) -> float:\n"
        "    cfg.SOLVER.MAX_ITER = 5\n    cfg.SOLVER.CLIP_GRADIENTS.ENABLED = cfg.MODEL.HSM.ENABLED\n"
        "    return cfg.clone().SOLVER.BASE_LR\n"
    )
    (tmp_path / "wrong.py").write_text(
        "from err_seg.config import get_cfg\n\ncfg = get_cfg()\n"
        "cfg.SOLVER.BASE_LRR\ncfg.SOLVER.MAX_ITR = 5\ncfg.SOLVER.MAX_ITER = 'many'\ncfg.SLOVER\n"
    )
    monkeypatch.chdir(REPOSITORY)
    files = [str(tmp_path / "right.py"), str(tmp_path / "wrong.py"), "err_seg/config.py", "err_seg/config/defaults.py"]
    report, *_ = mypy.api.run([f"--cache-dir={tmp_path}", "--follow-imports=skip", *files])
    refused = [line.split(": ")[0] for line in report.splitlines()[:-1]]
    assert refused == [f"{tmp_path / 'wrong.py'}:{line}" for line in (4, 5, 6, 7)], report


def test_same_class_as_detectron2s_parent():
    assert isinstance(default_cfg(), CfgNode)


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: str(file.relative_to(REPOSITORY)))
def test_every_shipped_configuration_builds(file):
    assert file.read_text().startswith("# "), "a configuration opens by saying what it is"
    cfg = err_seg.get_cfg(file, ["MODEL.CLIP.PRETRAINED", "", "MODEL.DEVICE", "meta"])
    with torch.device("meta"):
        model = err_seg.build_model(cfg)
    assert sum(parameter.numel() for parameter in model.parameters()) > 0


@pytest.mark.parametrize("name", ["err_seg_mobileclip2_s0", "err_seg_mobileclip2_s2", "err_seg_convnext_xxl"])
def test_statistics_are_those_that_the_weights_were_trained_with(name):
    model = err_seg.get_cfg(name).MODEL
    trained = open_clip.get_pretrained_cfg(model.CLIP.NAME, model.CLIP.PRETRAINED)
    for ours, theirs in ((model.PIXEL_MEAN, trained["mean"]), (model.PIXEL_STD, trained["std"])):
        assert ours == pytest.approx([255 * value for value in theirs], abs=1e-3)
