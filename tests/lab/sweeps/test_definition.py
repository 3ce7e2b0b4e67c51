import pytest
import torch

import err_seg
from err_seg.lab.sweeps.definition import SweepError, load_sweep
from err_seg.lab.sweeps.plan import plan_runs, select_runs
from err_seg.lab.sweeps.results_page import SWEEPS
from err_seg.lab.sweeps.tables import settings_text
from tests.helpers.toy import REPOSITORY

SHIPPED = sorted((REPOSITORY / "configs/ablations").glob("*.yaml"))
ONLY_REAL = ("table_ii", "table_xiv_large")
MINIMAL = "title: T\nbase: base.yaml\nvariants:\n  a: {}\n"


@pytest.fixture
def sweep_file(tmp_path):
    """Return a function that writes a sweep's file, beside a base configuration."""
    (tmp_path / "base.yaml").write_text("SOLVER: {MAX_ITER: 7}\n")

    def write(text):
        (tmp_path / "sweep.yaml").write_text(text)
        return tmp_path / "sweep.yaml"

    return write


def test_there_is_one_for_each_table_and_figure():
    assert {"table_ii", *SWEEPS, "table_xiv_large", "adaptive_k", "real_time", "corruptions"} == {
        file.stem for file in SHIPPED
    }


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.stem)
def test_shipped_sweeps_build(file, tmp_path):
    assert file.read_text().startswith("# "), "opens with what it is and needs"
    built = set()
    for mini in (False, True):
        if mini and file.stem in ONLY_REAL:
            with pytest.raises(SweepError, match="no entry 'mini'"):
                load_sweep(file, mini=True)
            continue
        sweep = load_sweep(file, mini=mini)
        runs = plan_runs(sweep, tmp_path)
        assert len(runs) == len(sweep.variants) * len(sweep.seeds)
        assert len({run.evaluation.folder for run in runs}) == len(runs), "two variants are the same"
        assert len(sweep.seeds) >= 3 or not mini
        if (
            not mini and sweep.plot is None and file.stem not in ("real_time", "corruptions")
        ):  # which are not of the paper
            assert all(variant.paper for variant in sweep.variants)
        for run in runs:
            network = run.cfg.MODEL.clone()
            network.CRM.NUM_KEPT = 0
            network = network.dump()
            if network not in built:
                built.add(network)
                run.cfg.MODEL.CLIP.PRETRAINED, run.cfg.MODEL.DEVICE = "", "meta"
                with torch.device("meta"):
                    err_seg.build_model(run.cfg)


def test_keys_of_the_file(sweep_file, tmp_path):
    sweep = load_sweep(
        sweep_file(
            "title: T\nbase: base.yaml\nseeds: [3, 4]\nsettings: {MODEL.CRM.NUM_RANKS: 2}\nnote: real\n"
            "variants:\n  a:\n    paper: {A-847: 13}\n  b:\n    settings: {MODEL.CRM.NUM_RANKS: 1}\n"
            "mini:\n  note: >\n    two\n    lines\n  seeds: [0, 1, 2]\n"
            "  variants:\n    a: {}\n    c:\n      paper: {A-847: 1}\n"
        )
    )
    runs = plan_runs(sweep, tmp_path, ["SOLVER.BASE_LR", 0.5])
    assert [(run.variant.name, run.seed, run.cfg.SEED) for run in runs] == [
        *(("a", 3, 3), ("b", 3, 3), ("a", 4, 4), ("b", 4, 4)),
    ]
    assert [run.cfg.MODEL.CRM.NUM_RANKS for run in runs] == [2, 1, 2, 1]
    assert {(run.cfg.SOLVER.MAX_ITER, run.cfg.SOLVER.BASE_LR) for run in runs} == {(7, 0.5)}
    mini = load_sweep(tmp_path / "sweep.yaml", mini=True)
    assert (mini.name, mini.note, mini.seeds) == ("sweep-mini", "two lines", (0, 1, 2))
    assert [(variant.name, variant.paper) for variant in mini.variants] == [
        ("a", {"A-847": 13.0}),
        ("c", {"A-847": 1.0}),
    ]
    assert [run.seed for run in plan_runs(sweep, tmp_path, seeds=[4, 9])] == [3, 3, 4, 4, 9, 9]
    assert [(run.variant.name, run.seed) for run in select_runs(runs, ["b"], [4])] == [("b", 4)]
    with pytest.raises(SweepError, match=r"no variant 'x'; there are 'a', 'b'"):
        select_runs(runs, ["x"], [])


def test_paths_are_looked_for_beside_the_file_and_the_base_may_be_a_shipped_name(tmp_path, monkeypatch):
    (tmp_path / "teacher.safetensors").touch()
    (tmp_path / "data").mkdir()
    text = """title: T
base: mini/sweep
settings: {DATASETS.ROOT: data}
variants:
  one: {settings: {MODEL.DISTILL.WEIGHTS: teacher.safetensors}}
  two: {settings: {MODEL.DISTILL.WEIGHTS: err-seg-b}}
"""
    (tmp_path / "own.yaml").write_text(text)
    monkeypatch.chdir("/")
    sweep = load_sweep(tmp_path / "own.yaml")
    assert sweep.base == REPOSITORY / "configs/mini/sweep.yaml"
    assert sweep.settings == {"DATASETS.ROOT": str(tmp_path / "data")}
    weights = [variant.settings["MODEL.DISTILL.WEIGHTS"] for variant in sweep.variants]
    assert weights == [str(tmp_path / "teacher.safetensors"), "err-seg-b"]


def test_mini_inherits_what_it_does_not_say_anew(sweep_file, tmp_path):
    """A top-level SOLVER.MAX_ITER of 12 used to be dropped, and 500 iterations were trained."""
    top = MINIMAL + "settings: {SOLVER.MAX_ITER: 12, SOLVER.BASE_LR: 0.5}\nseeds: [4, 5]\ncost: ade20k_150_val\n"
    mini = load_sweep(sweep_file(top + "mini: {}\n"), mini=True)
    assert mini.settings == {"SOLVER.MAX_ITER": 12, "SOLVER.BASE_LR": 0.5}
    assert (mini.seeds, mini.cost) == ((4, 5), "ade20k_150_val")
    assert {run.cfg.SOLVER.MAX_ITER for run in plan_runs(mini, tmp_path)} == {12}
    own = "mini: {settings: {SOLVER.MAX_ITER: 3, MODEL.CRM.NUM_RANKS: 2}, seeds: [6], cost: mini_world_test}\n"
    mini = load_sweep(sweep_file(top + own), mini=True)
    assert mini.settings == {"SOLVER.MAX_ITER": 3, "SOLVER.BASE_LR": 0.5, "MODEL.CRM.NUM_RANKS": 2}
    assert (mini.seeds, mini.cost) == ((6,), "mini_world_test")


TRAINED = {"MODEL.CLIP.IMAGE_TUNING": "weight", "MODEL.CLIP.TEXT_TUNING": "weight", "SOLVER.CLIP_MULTIPLIER": 0.1}
SEEDS = {"adaptive_k": (0, 1, 2, 3, 4)}  # the others have three
OF_MINI_SWEEPS = {"table_vi": TRAINED, "table_xi": TRAINED}  # the others have none


@pytest.mark.parametrize("file", [file for file in SHIPPED if file.stem not in ONLY_REAL], ids=lambda file: file.stem)
def test_shipped_sweeps_of_the_miniature_world_run_what_docs_results_shows(file, tmp_path):
    sweep = load_sweep(file, mini=True)
    assert sweep.base.resolve() == REPOSITORY / "configs/mini/sweep.yaml"
    assert (sweep.settings, sweep.seeds) == (OF_MINI_SWEEPS.get(file.stem, {}), SEEDS.get(file.stem, (0, 1, 2)))
    assert sweep.cost == ("mini_world_test" if file.stem in ("table_x", "real_time") else "")
    for run in plan_runs(sweep, tmp_path):
        solver, data = run.cfg.SOLVER, run.cfg.DATASETS
        assert (solver.MAX_ITER, solver.IMS_PER_BATCH, solver.BASE_LR, solver.WARMUP_ITERS) == (500, 2, 0.002, 50)
        assert (data.TRAIN, data.TEST) == (["mini_world_train"], ["mini_world_test"])
        assert (run.cfg.INPUT.CROP_SIZE, run.cfg.MODEL.CLIP.NAME[:4]) == (192, "mini")
        assert run.variant.settings.get("INPUT.SIZE", 192) == run.cfg.INPUT.SIZE


def test_what_will_be_run_is_said(sweep_file, tmp_path):
    text = MINIMAL.replace("a: {}", "{a: {}, b: {settings: {MODEL.CRM.NUM_RANKS: 1}}}")
    sweep = load_sweep(sweep_file(text + "settings: {SOLVER.MAX_ITER: 12}\nseeds: [4, 5]\n"))
    told = settings_text(sweep, plan_runs(sweep, tmp_path, ["SOLVER.BASE_LR", 0.5])).splitlines()
    assert "base.yaml, seeds 4, 5; the first: 12 iterations of 4 images of coco_stuff_train" in told[0]
    assert told[1:] == [
        "  all variants: SOLVER.MAX_ITER 12, SOLVER.BASE_LR 0.5",
        "  a: as the base",
        "  b: MODEL.CRM.NUM_RANKS 1",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (MINIMAL + "sedes: [1]\n", "unknown key 'sedes'; did you mean 'seeds'"),
        (MINIMAL + "seeds: [1, 1]\n", r"seeds must be a list of different whole numbers from 0, not \[1, 1\]"),
        (MINIMAL + "mini: {}\nplot: {y: a}\n", "plot: unknown key 'y'"),
        (MINIMAL + "plot: {label: K}\n", "plot: x must be text, not None"),
        ("base: base.yaml\nvariants: {a: {}}\n", "title must be text"),
        ("title: T\nbase: base.yaml\nvariants: {}\n", "at least one variant"),
        ("title: T\nbase: base.yaml\nvariants: [a]\n", "variants must be a mapping"),
        (
            "title: T\nbase: base.yaml\nvariants: {a: {setting: 1}}\n",
            "a: unknown key 'setting'; did you mean 'settings'",
        ),
        ("title: T\nbase: base.yaml\nvariants: {a: {paper: {A-847: high}}}\n", "a: paper must map columns to numbers"),
        ("- a\n", "must be a mapping"),
        ("a: [", "is not YAML"),
    ],
)
def test_mistakes_are_named(sweep_file, text, message):
    file = sweep_file(text)
    with pytest.raises(SweepError, match=message) as error:
        load_sweep(file)
    assert str(file) in str(error.value)


def test_a_variant_that_the_configuration_refuses_is_named(sweep_file, tmp_path):
    sweep = load_sweep(sweep_file("title: T\nbase: base.yaml\nvariants: {odd: {settings: {MODEL.CRM.RANKS: 1}}}\n"))
    with pytest.raises(SweepError, match=r"sweep.yaml: variant 'odd': unknown key MODEL.CRM.RANKS"):
        plan_runs(sweep, tmp_path)
    swept = "title: T\nbase: base.yaml\nvariants: {a: {settings: {MODEL.CRM.NUM_RANKS: 1}}}\n"
    with pytest.raises(SweepError, match=r"sweeps MODEL.CRM.NUM_RANKS, which cannot be overridden"):
        plan_runs(load_sweep(sweep_file(swept)), tmp_path, ["SEED", 1, "MODEL.CRM.NUM_RANKS", 2])
    with pytest.raises(SweepError, match=r"no sweep .*none.yaml; its folder holds .*base.yaml"):
        load_sweep(tmp_path / "none.yaml")
