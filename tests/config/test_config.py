"""Loading, overriding and validating configurations."""

import math
import pickle
import re
from pathlib import Path

import mypy.api
import open_clip
import pytest
import torch

import err_seg
from err_seg.config import Config, ConfigError, settings_of
from err_seg.config.defaults import KEYS
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
        (["TEST.BEST_METRIC", ""], r"TEST\.BEST_METRIC must be a text that is not empty"),
        (["MODEL.LOSS.TERM_WEIGHTS", [0.5]], r"MODEL\.LOSS\.TERM_WEIGHTS must be empty or 0 weights"),
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
    for base in ("_BASE_: nowhere.yaml", "_BASE_: unusable.yaml", "- INPUT", ""):
        (tmp_path / "unusable.yaml").write_text(base)
        with pytest.raises(ConfigError, match=r"unusable\.yaml is not a usable configuration: "):
            err_seg.get_cfg(tmp_path / "unusable.yaml")


def test_several_bases_follow_each_other(tmp_path):
    (tmp_path / "first.yaml").write_text("INPUT:\n  SIZE: 320\n  CROP_SIZE: 320\nSEED: 1\n")
    (tmp_path / "second.yaml").write_text("INPUT:\n  SIZE: 96\nSEED: 2\n")
    (tmp_path / "delta.yaml").write_text(f"_BASE_: [first.yaml, {tmp_path}/second.yaml]\nSEED: 3\n")
    cfg = err_seg.get_cfg(tmp_path / "delta.yaml")
    assert (cfg.INPUT.SIZE, cfg.INPUT.CROP_SIZE, cfg.SEED) == (96, 320, 3)


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
    """Each line that declares a key ends in a comment, or stands, it or its group of lines, under one."""
    lines = (REPOSITORY / "err_seg/config/defaults.py").read_text().splitlines()
    keys = {i: match[1] for i, line in enumerate(lines) if (match := re.match(r"    ([A-Z]\w*): .* = (?!field)", line))}
    assert sorted(keys.values()) == sorted(key.split(".")[-1] for key in KEYS)
    say_it_themselves = {"META_ARCHITECTURE", "NUM_LAYERS", "NUM_HEADS", "MAX_ITER", "OUTPUT_DIR"}
    for i, name in keys.items():
        above = i
        while above in keys:
            above -= 1
        assert "  # " in lines[i] or lines[above].strip().startswith("#") or name in say_it_themselves, name


def test_every_default_is_in_its_range_and_every_key_refuses_something():
    defaults = dict(settings_of(Config()))
    assert list(defaults) == list(KEYS)
    free = {"MODEL.WEIGHTS", "MODEL.CLIP.PRETRAINED", "MODEL.DISTILL.WEIGHTS", "MODEL.TEXT.CACHE_DIR"}
    free |= {"DATASETS.ROOT", "LOG.WANDB_PROJECT"}
    wrong = {float: [-1.0, 2.0, float("nan")], int: [-32, 31], str: ["", "nonsense/"], list: [["nonsense{}{}"], [-1.0]]}
    wrong[dict] = [{"LAYERS": 3}]
    for key, default in defaults.items():
        assert KEYS[key].accepts(default), key
        if type(default) is not bool:
            refused = [value for value in wrong[type(default)] if not KEYS[key].accepts(value)]
            assert bool(refused) == (key not in free), key


def test_a_key_that_does_not_exist_cannot_be_assigned():
    cfg = err_seg.get_cfg()
    with pytest.raises(AttributeError, match=r"SolverConfig has no key MAX_ITERS; did you mean 'MAX_ITER'\?"):
        cfg.SOLVER.MAX_ITERS = 5
    with pytest.raises(AttributeError, match=r"Config has no key NONSENSE; its keys are MODEL, INPUT, "):
        cfg.NONSENSE = 5
    with pytest.raises(TypeError, match=r"OUTPUT_DIR must be a text, number, list, .*not .*Path"):
        cfg.OUTPUT_DIR = REPOSITORY
    assert cfg == err_seg.get_cfg()


def test_a_frozen_configuration_refuses_assignments_and_so_does_its_clone():
    cfg = err_seg.get_cfg()
    cfg.freeze()
    for frozen in (cfg, cfg.clone(), pickle.loads(pickle.dumps(cfg))):
        with pytest.raises(AttributeError, match="NUM_KEPT cannot be set: the configuration is frozen"):
            frozen.MODEL.CRM.NUM_KEPT = 3
        frozen.defrost()
        frozen.MODEL.CRM.NUM_KEPT = 3
        assert frozen.MODEL.CRM.NUM_KEPT == 3
        assert frozen != err_seg.get_cfg()


def test_a_clone_and_the_defaults_are_independent():
    cfg = err_seg.get_cfg()
    copy = cfg.clone()
    copy.DATASETS.TEST.append("another")
    copy.MODEL.GUD.DIMS[0] = 8
    assert cfg == err_seg.get_cfg() != copy


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
    files = [str(tmp_path / "right.py"), str(tmp_path / "wrong.py"), *map(str, Path("err_seg/config").glob("*.py"))]
    report, *_ = mypy.api.run([f"--cache-dir={tmp_path}", "--follow-imports=skip", *files])
    refused = [line.split(": ")[0] for line in report.splitlines()[:-1]]
    assert refused == [f"{tmp_path / 'wrong.py'}:{line}" for line in (4, 5, 6, 7)], report


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
