"""Parts of one's own: registries, imports, the section EXTRA, and that a checkpoint alone never imports anything."""

import json
import logging
import sys

import pytest
import torch
import yaml

import err_seg
from err_seg import plugins
from err_seg.config import ConfigError, extra_section
from err_seg.data import register, spec_from_dict
from err_seg.engine import evaluate, train
from err_seg.engine.launch import join_processes, launch
from err_seg.engine.step import build_loss_terms
from err_seg.models.checkpoint import CheckpointError, save_weights
from err_seg.plugins import DECODERS, Registry, import_packages
from tests.helpers.training import environment, lines, run

PARTS = """
__version__ = "1.2"
from err_seg.config import constraints, extra_section
from err_seg.config.section import Section, key
from err_seg.plugins import LOSS_TERMS, METRICS, SECTIONS, TRANSFORMS

@SECTIONS.register("PARTS")
class PartsConfig(Section):
    SIDE: int = key(8, constraints.POSITIVE)
    RATE: float = key(0.5, constraints.SHARE)
    NAMES: list = key([], constraints.NAMES)

@LOSS_TERMS.register("size")
def size(cfg):
    return lambda inputs: inputs.logits.square().mean()

@LOSS_TERMS.register("mean")
def mean(cfg):
    return lambda inputs: extra_section(cfg, "PARTS").RATE * inputs.logits.mean()

@TRANSFORMS.register("half")
def half(cfg):
    return lambda image, label, generator: (image[:, ::2], label)

@TRANSFORMS.register("float")
def in_floats(cfg):
    return lambda image, label, generator: (image.float(), label)

@METRICS.register("taken")
def taken(confusion, names):
    return {"mIoU": 1.0}

@METRICS.register("pixels")
def pixels(confusion, names):
    return {"pixels": float(confusion.sum()), "classes": float(len(names))}
"""
IMPORTS = ("MODEL.IMPORTS", ["parts"])


@pytest.fixture
def parts(package):
    """Write the package ``parts``."""
    return package("parts", PARTS)


# ---- registries


def test_a_name_is_given_once_and_a_module_may_be_reloaded(own_parts):
    registry = Registry("MODEL.GUD.NAME")

    def build(cfg, maps):
        return 1

    registry.register("mine")(build)

    def build(cfg, maps):  # as after a reload
        return 2

    assert registry.register("mine")(build) is build
    assert registry.get("mine")(None, None) == 2
    with pytest.raises(ConfigError, match=r"MODEL\.GUD\.NAME: the name 'mine' is taken by .*build; choose another"):
        registry.register("mine")(len)


def test_an_unknown_name_gets_the_nearest_one(own_parts):
    with pytest.raises(
        ConfigError, match=r"MODEL\.GUD\.NAME: there is no 'GDU' \(registered: 'GUD'\); did you mean 'GUD'"
    ):
        DECODERS.get("GDU")
    with pytest.raises(ConfigError, match="name the package that registers it"):
        DECODERS.get("something else")
    with pytest.raises(ConfigError, match=r"KEY: there is no 'x' \(none is registered\)"):
        Registry("KEY").get("x")


@pytest.mark.parametrize(
    "settings",
    [
        ("MODEL.CLIP.ENCODER", "nothing"),
        ("MODEL.COST_EMBEDDING.NAME", "nothing"),
        ("MODEL.ESCF.NAME", "nothing"),
        ("MODEL.GUD.NAME", "nothing"),
        ("MODEL.LOSS.TERMS", ["nothing"]),
        ("INPUT.TRANSFORMS", ["nothing"]),
        ("TEST.METRICS", ["nothing"]),
    ],
)
def test_a_run_with_an_unknown_part_writes_nothing(settings, run_cfg, tmp_path):
    with pytest.raises(ConfigError, match=rf"^{settings[0]}: there is no 'nothing'"):
        run(run_cfg(*settings, "TEST.EVAL_PERIOD", 2))
    assert not (tmp_path / "out").exists()


# ---- imports


def test_packages_that_cannot_be_imported_are_named(package):
    package("broken", "raise OSError('no licence')")
    for name, reason in (("broken", "OSError: no licence"), ("absent", "ModuleNotFoundError")):
        with pytest.raises(ConfigError, match=f"package '{name}'.* cannot be imported .*{reason}.*PYTHONPATH"):
            err_seg.get_cfg(None, ["MODEL.IMPORTS", [name]])
    with pytest.raises(ConfigError, match=r"MODEL\.IMPORTS .* must be of type list"):
        err_seg.get_cfg(None, ["MODEL.IMPORTS", "parts"])


def test_imports_are_logged_once(parts, caplog):
    with caplog.at_level(logging.INFO, logger="err_seg.plugins"):
        for _ in range(2):
            err_seg.get_cfg(None, IMPORTS)
    assert [record.getMessage().split(" from ")[0] for record in caplog.records] == ["imported parts 1.2"]
    assert plugins.imported_packages() == {"parts": "1.2"}


WRITES = "import pathlib\npathlib.Path({!r}).write_text('imported')\n"


@pytest.fixture
def foreign(package, toy_model, toy_cfg, tmp_path):
    """Return a function that writes weights whose metadata name a package, which writes a file when it is imported."""
    package("evil", WRITES.format(str(tmp_path / "trace")))

    def write(imports, **metadata):
        tree = yaml.safe_load(toy_cfg().dump())
        tree["MODEL"]["IMPORTS"] = imports
        save_weights(toy_model(), tmp_path / "w.safetensors", {"config": yaml.safe_dump(tree), **metadata})
        return tmp_path / "w.safetensors"

    yield write
    assert not (tmp_path / "trace").exists(), "a checkpoint has caused an import"


@pytest.mark.parametrize("packages", [{"evil": "2.0"}, {}, [["evil", "2.0"]], ["evil"], 5, None, "evil", {"evil": [1]}])
def test_a_checkpoint_alone_imports_nothing(packages, foreign):
    file = foreign(["evil"], packages=packages)
    with pytest.raises(CheckpointError, match=r"needs packages that are not imported: evil.*imports=\['evil'\]"):
        err_seg.load(file, device="cpu")
    with pytest.raises(CheckpointError, match="not imported: evil"):
        err_seg.load(file, device="cpu", overrides=["MODEL.CRM.NUM_KEPT", 2])


@pytest.mark.parametrize("imports", ["evil", "['evil']", {"evil": 1}, 5, [5], [["evil"]], None, [None]])
def test_packages_of_the_wrong_form_are_refused(imports, foreign):
    with pytest.raises(CheckpointError, match=r"MODEL\.IMPORTS is .*, expected a list of names"):
        err_seg.load(foreign(imports), device="cpu")


def test_the_user_names_the_package(foreign, tmp_path, package, caplog):
    file = foreign(["harmless"], packages={"harmless": "0.9"})
    package("harmless", '__version__ = "1.0"\n')
    model = err_seg.load(file, device="cpu", imports=["harmless"])
    assert model.settings["MODEL.IMPORTS"] == ["harmless"]
    (warning,) = (r.getMessage() for r in caplog.records if "written with" in r.getMessage())
    assert warning == f"{file} was written with harmless 0.9"
    caplog.clear()
    err_seg.load(foreign(["harmless"], packages={"harmless": "1.0"}), device="cpu")  # imported by now
    err_seg.load(foreign(["harmless"]), device="cpu", overrides=["MODEL.IMPORTS", ["harmless"]])
    assert "written with" not in caplog.text


def test_a_configuration_names_the_package(foreign, tmp_path, package, toy_cfg):
    package("harmless", "")
    file = foreign(["evil"])
    (tmp_path / "own.yaml").write_text(toy_cfg("MODEL.IMPORTS", ["harmless"]).dump())
    model = err_seg.load(file, device="cpu", config=tmp_path / "own.yaml")
    assert model.settings["MODEL.IMPORTS"] == ["harmless"]


# ---- EXTRA


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (("EXTRA.PART.SIDE", 3), r"EXTRA: there is no 'PART' \(registered: 'PARTS'\); did you mean 'PARTS'"),
        (("EXTRA.PARTS.SIZE", 3), r"unknown key EXTRA\.PARTS\.SIZE \(EXTRA\); did you mean EXTRA\.PARTS\.SIDE"),
        (("EXTRA.PARTS.WHAT.ELSE", 3), r"unknown key EXTRA\.PARTS\.WHAT"),
        (("EXTRA.PARTS.SIDE", "three"), r"EXTRA\.PARTS\.SIDE \(EXTRA\) must be of type int like 8, not 'three'"),
        (("EXTRA.PARTS.SIDE", 2.5), "must be of type int"),
        (("EXTRA.PARTS.SIDE", 0), r"EXTRA\.PARTS\.SIDE must be positive, not 0"),
        (("EXTRA.PARTS.RATE", "1.5"), r"EXTRA\.PARTS\.RATE must be in 0\.\.1, not 1\.5"),
        (("EXTRA.PARTS.NAMES", [1]), r"EXTRA\.PARTS\.NAMES must be a list of names"),
        (("EXTRA", 5), r"EXTRA \(override\): 5 does not fit EXTRA, sections of settings by name"),
        (("EXTRA.PARTS", 5), "EXTRA must be sections of settings"),
    ],
)
def test_extra_is_checked_by_who_registers_it(settings, sentence, parts):
    with pytest.raises(ConfigError, match=sentence):
        err_seg.get_cfg(None, [*IMPORTS, *settings])


def test_extra_without_its_package_is_refused(parts):
    with pytest.raises(ConfigError, match=r"EXTRA: there is no 'PARTS' \(none is registered\); name the package"):
        err_seg.get_cfg(None, ["EXTRA.PARTS.SIDE", 3])


def test_extra_merges_base_delta_and_overrides(parts, tmp_path):
    (tmp_path / "base.yaml").write_text("MODEL: {IMPORTS: [parts]}\nEXTRA: {PARTS: {SIDE: 3, RATE: 0.25}}\n")
    (tmp_path / "delta.yaml").write_text("_BASE_: base.yaml\nEXTRA: {PARTS: {SIDE: 4}}\n")
    cfg = err_seg.get_cfg(tmp_path / "delta.yaml", ["EXTRA.PARTS.NAMES", "['a', 'b']"])
    assert cfg.EXTRA == {"PARTS": {"SIDE": 4, "RATE": 0.25, "NAMES": ["a", "b"]}}
    assert yaml.safe_load(cfg.dump())["EXTRA"] == cfg.EXTRA, "with all defaults, in order"
    texts = err_seg.get_cfg(tmp_path / "delta.yaml", ["EXTRA.PARTS.SIDE", "5", "EXTRA.PARTS.RATE", "1"])
    section = extra_section(texts, "PARTS")
    assert (section.SIDE, section.RATE) == (5, 1.0)
    assert type(section.SIDE) is int
    assert type(section.RATE) is float
    assert extra_section(err_seg.get_cfg(None, IMPORTS), "PARTS").SIDE == 8, "the default, where nothing is set"
    (tmp_path / "again.yaml").write_text(texts.dump())
    assert err_seg.get_cfg(tmp_path / "again.yaml").dump() == texts.dump()
    texts.EXTRA["PARTS"]["SIDE"] = -1  # whatever is assigned is checked before a network is built
    with pytest.raises(ConfigError, match=r"EXTRA\.PARTS\.SIDE must be positive"):
        err_seg.build_model(texts)


# ---- loss terms, transforms, metrics


def test_terms_are_logged_one_by_one_and_sum_to_the_loss(parts, run_cfg, tmp_path):
    terms = ("MODEL.LOSS.TERMS", ["size", "mean"], "MODEL.LOSS.TERM_WEIGHTS", [0.5, 2.0])
    run(run_cfg(*IMPORTS, *terms, "SOLVER.MAX_ITER", 2, "SOLVER.ACCUMULATION_STEPS", 2, "EXTRA.PARTS.RATE", 1))
    for line in lines(tmp_path / "out")[:2]:
        losses = {name: value for name, value in line.items() if name.startswith("loss_")}
        assert losses.keys() == {"loss_sem_seg", "loss_size", "loss_mean"}
        assert sum(losses.values()) == pytest.approx(line["total_loss"], rel=1e-6)
        assert losses["loss_size"] > 0
    run(run_cfg("SOLVER.MAX_ITER", 1, "OUTPUT_DIR", str(tmp_path / "plain")))
    (line,) = (line for line in lines(tmp_path / "plain") if "lr" in line)
    assert not any(name.startswith("loss_") for name in line), "a loss of one term has one number"


def test_terms_have_weights_and_names_of_their_own(parts, run_cfg):
    cfg = run_cfg(*IMPORTS, "MODEL.LOSS.TERMS", ["size"])
    assert build_loss_terms(cfg)["size"][0] == 1
    with pytest.raises(ConfigError, match=r"TERM_WEIGHTS must be empty or 1 weights, not \[1, 2\]"):
        run_cfg(*IMPORTS, "MODEL.LOSS.TERMS", ["size"], "MODEL.LOSS.TERM_WEIGHTS", [1, 2])
    plugins.LOSS_TERMS.register("distill")(plugins.LOSS_TERMS.get("size"))
    with pytest.raises(ConfigError, match="distill is the name of a term that is always there"):
        build_loss_terms(run_cfg(*IMPORTS, "MODEL.LOSS.TERMS", ["distill"]))


def train_each(cfgs):
    """Train in one of several processes."""
    for cfg in cfgs:
        torch.set_num_threads(1)
        join_processes(cfg)
        import_packages(cfg.MODEL.IMPORTS)
        for entry in cfg.DATASETS.CUSTOM:
            register(spec_from_dict(entry))
        train(cfg, err_seg.build_model(cfg))
    return 0


def test_two_processes_log_the_terms_of_one(parts, run_cfg, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path / 'packages'}:{environment()['PYTHONPATH']}")
    own = (*IMPORTS, "MODEL.LOSS.TERMS", ["size", "mean"], "SOLVER.MAX_ITER", 2, "MODEL.ESCF.DROP_PATH", 0.0)
    run(run_cfg(*own))
    assert launch(train_each, [run_cfg(*own, "OUTPUT_DIR", str(tmp_path / "two"))], processes=2) == 0
    one, two = lines(tmp_path / "out"), lines(tmp_path / "two")
    for first, second in zip(one, two, strict=True):
        assert "loss_size" in first or "lr" not in first
        assert second == pytest.approx(first, rel=1e-4)


@pytest.mark.parametrize("name", ["half", "float"])
def test_a_transform_must_keep_shape_and_type(name, parts, run_cfg):
    with pytest.raises(ValueError, match=r"INPUT\.TRANSFORMS: .* returned .*, expected .*\[3, 32, 32\]"):
        run(run_cfg(*IMPORTS, "INPUT.TRANSFORMS", [name]))


def test_metrics_join_the_others_under_names_of_their_own(parts, run_cfg, toy_model, tmp_path):
    model = toy_model().eval()
    (result,) = evaluate(run_cfg(*IMPORTS, "TEST.METRICS", ["pixels"]), model)
    assert result.metrics["classes"] == 7
    assert result.metrics["pixels"] > 1000
    stored = json.loads((tmp_path / "out/results.json").read_text())["benchmarks"]["toy_val"]["metrics"]
    assert stored["pixels"] == result.metrics["pixels"]
    taken = run_cfg(*IMPORTS, "TEST.METRICS", ["taken"], "OUTPUT_DIR", str(tmp_path / "taken"))
    with pytest.raises(ValueError, match=r"TEST\.METRICS: there is already a metric 'mIoU'; rename"):
        evaluate(taken, model)


def test_an_entry_point_may_name_an_attribute(package, monkeypatch):
    package("installed", '__version__ = "3"\ndef register():\n    raise AssertionError("importing is enough")\n')
    point = plugins.metadata.EntryPoint("installed", "installed:register", plugins.GROUP)
    monkeypatch.setattr(plugins.metadata, "entry_points", lambda group: [point])
    plugins._entry_points.cache_clear()
    err_seg.get_cfg(None)
    plugins._entry_points.cache_clear()
    assert plugins.imported_packages() == {"installed": "3"}
    assert "installed" in sys.modules
