"""The benchmark's cases, how they are timed and counted, and the command."""

import csv
import json
from dataclasses import replace
from functools import partial

import pytest
import torch

from err_seg.commands.benchmark import main
from err_seg.config import get_cfg
from err_seg.config.constants import BY_NEED
from err_seg.evaluation import BenchmarkResult, save_results
from err_seg.lab.benchmarks import measurement
from err_seg.lab.benchmarks.cases import Case, make_work, own_num_kept
from err_seg.lab.benchmarks.machine import Machine, Operations
from err_seg.lab.benchmarks.measurement import percentiles, time_in_turns
from err_seg.text.vocabularies import load_vocabulary
from tests.helpers.toy import TESTS, TOY

TRAINED_ON = ["DATASETS.TRAIN", "['pascal_voc_20_val']", "MODEL.CRM.NUM_KEPT_TRAIN", 12]


@pytest.fixture
def command(tmp_path):
    """Return a function that runs the command on the toy network, and returns its status."""
    (tmp_path / "toy.yaml").write_text(get_cfg(None, [*TOY, *TRAINED_ON]).dump())
    config = ["--config-file", str(tmp_path / "toy.yaml")]
    return lambda kind, *options: main([kind, *config, "--rounds", "2", *map(str, options)])


def test_table_files_and_plot(command, tmp_path, capsys):
    options = ("--num-classes", 7, 20, "--num-kept", 4, 2, "--image", 30, 40, "--precision", "fp32", "bf16")
    assert command("prediction", *options, "--output", tmp_path / "out") == 0
    printed = capsys.readouterr().out
    assert {file.name for file in (tmp_path / "out").iterdir()} == {"results.json", "table.md", "table.csv", "plot.png"}
    results = json.loads((tmp_path / "out/results.json").read_text())
    assert results["command"].startswith("err-seg benchmark prediction --config-file")
    assert results["machine"]["flops"].keys() == {"fp32", "bf16"}
    assert results["machine"]["bandwidth"] > 1e8
    rows = results["rows"]
    assert [row["case"]["num_classes"] for row in rows] == [7] * 5 + [20] * 5
    for group in (rows[:5], rows[5:]):
        assert [row["case"]["is_reference"] for row in group] == [True, False, False, False, False]
        assert [row["kept"] for row in group] == [4, 4, 4, 2, 2]
        assert [row["case"]["precision"] for row in group] == ["fp32", "fp32", "bf16", "fp32", "bf16"]
        assert group[0]["ratios"] == [1.0, 1.0]
        reference, own, _, fewer, _ = (sum(row["macs"].values()) for row in group)
        assert reference > own > fewer > 0
        assert all(len(row["seconds"]) == 2 and row["roofline_share"] > row["arithmetic_share"] > 0 for row in group)
    table = (tmp_path / "out/table.md").read_text()
    assert "| reference, K = 4 |" in table
    assert "the paper's" in table.lower()
    assert "| K = 2, bf16" in printed
    assert "| GMAC" in printed
    with open(tmp_path / "out/table.csv", newline="") as file:
        assert len(list(csv.reader(file))) == 1 + 10


@pytest.mark.slow
def test_a_predictor_is_timed_beside_the_network(command, tmp_path, capsys):
    (tmp_path / "own.py").write_text(
        "import numpy as np\nimport torch\n"
        "def grey(image, names):\n"
        "    torch.ones(100, 100) @ torch.ones(100, 10)\n"
        "    return np.zeros(image.shape[:2], int)\n"
    )
    options = ("--num-kept", 4, "--no-reference", "--predictor", f"{tmp_path}/own.py:grey")
    assert command("prediction", "--num-classes", 5, *options, "--image", 30, 40, "--output", tmp_path / "out") == 0
    network, own = json.loads((tmp_path / "out/results.json").read_text())["rows"]
    assert own["case"]["predictor"] == f"{tmp_path}/own.py:grey"
    assert sum(own["macs"].values()) == 100 * 100 * 10
    assert sum(own["seconds"]) < sum(network["seconds"])
    assert f"| {tmp_path}/own.py:grey |" in capsys.readouterr().out
    assert command("prediction", "--predictor", "absent:grey") == 1
    assert "--predictor absent:grey cannot be loaded" in capsys.readouterr().err


def test_a_predictor_is_asked_for_the_names_of_a_benchmark(tmp_path):
    words = tmp_path / "words.json"
    (tmp_path / "own.py").write_text(
        "import json\nimport numpy as np\n\n\ndef grey(image, names):\n"
        f"    json.dump(names, open({str(words)!r}, 'w'))\n    return np.zeros(image.shape[:2], int)\n"
    )
    for classes, expected in ((20, load_vocabulary("pascal_voc_20")), (3, ("thing 0", "thing 1", "thing 2"))):
        case = Case("prediction", "", classes, None, 64, 1, (30, 40), predictor=f"{tmp_path}/own.py:grey")
        assert make_work(case, get_cfg(), None)() == classes
        assert tuple(json.loads(words.read_text())) == expected


def test_time_and_miou_in_one_table(command, tmp_path, capsys):
    """Table III and Fig. 1, of what was timed as it was evaluated, and of nothing else."""
    (tmp_path / "own.py").write_text(
        "import numpy as np\ndef grey(image, names):\n    return np.zeros((30, 40), int)\n"
    )
    own, config, timings = f"{tmp_path}/own.py:grey", str(tmp_path / "toy.yaml"), tmp_path / "speed/results.json"
    options = ("--num-kept", 4, "--predictor", own, "--image", 30, 40, "--output", timings.parent)
    assert command("prediction", "--num-classes", 2, 3, *options) == 0
    settings = {"K": 4, "S": get_cfg(config).INPUT.SIZE, "min_score": 0.0, "precision": "fp32"}
    for run, found in (("net", settings), ("own", {"predictor": own}), ("other", {**settings, "K": 2})):
        results = [
            BenchmarkResult(name, {"mIoU": 40.0 + len(classes)}, classes, [1] * len(classes), 1, found)
            for name, classes in (("A-2", ["a", "b"]), ("A-3", ["a", "b", "c"]))
        ]
        save_results(results, tmp_path / run / "results.json")
    table = ["table", str(timings), "--output", str(tmp_path / "table"), "--runs"]
    capsys.readouterr()
    assert main([*table, f"{config}={tmp_path}/net", f"{own}={tmp_path}/own/results.json"]) == 0
    assert "| method" in capsys.readouterr().out
    header, *rows = csv.reader((tmp_path / "table/table.csv").read_text().splitlines())
    assert header == ["method", *(f"A-{n} {what}" for n in (2, 3) for what in ("ms", "GMAC", "mIoU"))]
    assert [(row[0], row[3], row[6]) for row in rows] == [(config, "42.0", "43.0"), (own, "42.0", "43.0")]
    measured = json.loads(timings.read_text())["rows"]
    (first,) = (
        r
        for r in measured
        if r["case"]["num_classes"] == 2 and not r["case"]["is_reference"] | bool(r["case"]["predictor"])
    )
    assert float(rows[0][1]) == pytest.approx(1e3 * percentiles(first["seconds"])[0])
    assert float(rows[0][2]) == pytest.approx(sum(first["macs"].values()) / 1e9)
    assert rows[1][2] == ""  # it has no multiplications
    assert (tmp_path / "table/plot.png").stat().st_size > 1000
    assert main([*table, f"{config}={tmp_path}/other"]) == 1
    assert "0 of the timings are of what was evaluated on A-2 (kind prediction, num_classes 2, num_kept 2" in (
        capsys.readouterr().err
    )
    assert main([*table, str(tmp_path / "net")]) == 1
    assert "expected NAME=RUN each" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["evaluation", "training", "vocabulary"])
def test_other_kinds(command, capsys, kind):
    assert command(kind, "--num-classes", 300, "--no-demands") == 0
    printed = capsys.readouterr().out
    assert f"{kind}: " in printed
    names = {"vocabulary": ("reference", "ERR-Seg"), "training": ("reference, K = 12", "K = 12")}
    for name in names.get(kind, ("reference, K = 4", "K = 4")):
        assert f"| {name} " in printed


def test_classes_by_need(command, capsys):
    options = ("--num-classes", 20, "--no-demands", "--no-reference", "--num-kept", "need", "all")
    assert command("prediction", *options) == 1
    assert "--num-kept need: MODEL.CRM.MIN_SCORE is 0" in capsys.readouterr().err
    assert command("prediction", *options, "--opts", "MODEL.CRM.MIN_SCORE", 0.2) == 0
    kept = [line.split("|")[2] for line in capsys.readouterr().out.splitlines() if line.startswith(("| K", "| all"))]
    assert 1 <= float(kept[0]) <= 4
    assert float(kept[1]) == 20


def test_by_need_is_at_most_the_number_it_is_compared_with(toy_model):
    cfg = get_cfg(None, [*TOY, *TRAINED_ON, "MODEL.CRM.MIN_SCORE", 1e-9, "MODEL.CRM.MIN_SCORE_TRAIN", 0.2])
    model = toy_model("MODEL.CRM.MIN_SCORE", 1e-9, "MODEL.CRM.MIN_SCORE_TRAIN", 0.2, *TRAINED_ON)
    cfg.MODEL.CRM.NUM_KEPT = 2  # the model's own is 4
    assert make_work(Case("prediction", "", 20, BY_NEED, 64, 1, (30, 40)), cfg, model)() <= 2
    # labels bring up to 8 classes, and few others are needed
    assert 1 <= make_work(Case("training", "", 20, BY_NEED, 64, 2, (64, 64)), cfg, model)() < 12


def test_every_case_is_compiled_however_many_there_are(monkeypatch, toy_model):
    """Beyond a limit torch runs a function uncompiled, and says nothing."""
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=backend))
    monkeypatch.setattr(measurement, "build_model", lambda cfg: toy_model())
    counts = []
    for cases in (1, 12):
        graphs.clear()
        torch.compiler.reset()
        group = [Case("prediction", "", 20, 2 + i, 64, 1, (30, 40), compiled="default") for i in range(cases)]
        time_in_turns(group, get_cfg(None, TOY), 1)
        counts.append(len(graphs))
    assert counts[1] - counts[0] >= 11, "a decoder for each K"


def test_a_later_benchmark_leaves_no_plot_of_an_earlier_one(command, tmp_path):
    output = ("--no-demands", "--output", tmp_path / "out", "--image", 30, 40)
    assert command("prediction", "--num-classes", 7, 20, *output) == 0
    assert (tmp_path / "out/plot.png").is_file()
    assert command("prediction", "--num-classes", 7, *output) == 0
    assert not (tmp_path / "out/plot.png").exists()
    document = json.loads((tmp_path / "out/results.json").read_text(), parse_constant=pytest.fail)  # NaN is no JSON
    assert document["rows"][0]["memory"] is None


def test_wrong_arguments(command, capsys):
    with pytest.raises(SystemExit):
        command("prediction", "--num-kept", "few")
    assert "'few' is not a number of at least 1" in capsys.readouterr().err
    assert main(["prediction", "--config-file", "no_such_model"]) == 1
    assert "no_such_model" in capsys.readouterr().err


def test_cases_take_turns(monkeypatch):
    """So that a slower minute of the machine slows all cases, and ratios stay what they are."""
    order = []
    monkeypatch.setattr(measurement, "build_model", lambda cfg: torch.nn.Module())
    monkeypatch.setattr(torch.nn.Module, "device", torch.device("cpu"), raising=False)
    monkeypatch.setattr(measurement, "make_work", lambda case, *_: lambda: order.append(case.num_kept) or 1.0)
    cases = [Case("prediction", "toy", 7, kept, 64, 1, (30, 40)) for kept in (1, 2, 3)]
    rows = time_in_turns(cases, None, rounds=2)
    assert order == [1, 2, 3] * 3, "once to warm up, then two rounds"
    assert [len(row.ratios) for row in rows] == [2, 2, 2]


def test_work_is_what_it_says(toy_model):
    model, cfg = toy_model(), get_cfg(None, [*TOY, "DATASETS.TRAIN", "['pascal_voc_20_val']"])
    before = [parameter.clone() for parameter in model.parameters()]
    assert make_work(Case("prediction", "", 20, 3, 64, 2, (30, 40)), cfg, model)() == 3
    assert all(map(torch.equal, before, model.parameters()))
    make_work(Case("training", "", 20, 12, 64, 2, (64, 64)), cfg, model)()
    assert not all(map(torch.equal, before, model.parameters())), "a step was taken"


def test_own_number_of_classes_is_that_of_the_next_larger_benchmark():
    cfg = get_cfg(TESTS.parent / "configs/err_seg_convnext_b.yaml")
    found = [own_num_kept(cfg, classes, training=False) for classes in (20, 59, 60, 150, 847, 10_000)]
    assert found == [16, 24, 32, 32, 48, 48]
    assert own_num_kept(cfg, 171, training=True) == cfg.MODEL.CRM.NUM_KEPT_TRAIN
    cfg.MODEL.CRM.NUM_KEPT = 5
    assert own_num_kept(cfg, 20, training=False) == 5
    cfg.MODEL.CRM.ENABLED = False
    assert own_num_kept(cfg, 20, training=False) is own_num_kept(cfg, 20, training=True) is None


def test_operations_are_counted_with_their_traffic():
    a, b = torch.ones(4, 8), torch.ones(8, 2)
    with Operations() as operations:
        a.t()
        a @ b
        a + 1
    assert operations.seen == [(2 * 4 * 8 * 2, 4 * (32 + 16 + 8)), (0, 4 * (32 + 32))]
    machine = Machine("toy", {"fp32": 16.0}, bandwidth=64.0)
    assert machine.seconds_needed(operations.seen, "fp32") == 128 / 16 + 256 / 64


@pytest.mark.parametrize("groups", [1, 8])
@pytest.mark.parametrize("kind", [torch.nn.Conv2d, torch.nn.ConvTranspose2d])
def test_a_backward_pass_costs_as_much_for_input_and_for_weight_as_forward(kind, groups):
    layer, x = kind(8, 8, 3, groups=groups), torch.randn(2, 8, 10, 10, requires_grad=True)
    with Operations() as forward:
        output = layer(x)
    with Operations() as backward:
        output.sum().backward()
    flops = sum(count for count, _ in forward.seen)
    assert flops > 0
    assert sum(count for count, _ in backward.seen) == 2 * flops


def test_percentiles():
    assert percentiles([3.0]) == (3.0, 3.0, 3.0)
    assert percentiles([float(value) for value in range(11)]) == (5.0, 1.0, 9.0)


@pytest.mark.slow
def test_compiled_cases(command, capsys):
    assert command("prediction", "--num-classes", 20, "--no-demands", "--compile") == 0
    assert "| K = 4, compiled " in capsys.readouterr().out


def test_recomputed_cases(command, tmp_path):
    options = ("--no-reference", "--recompute", "elementwise", "blocks", "--output", tmp_path)
    assert command("training", "--num-classes", 20, "--size", 64, *options) == 0
    plain, elementwise, blocks = json.loads((tmp_path / "results.json").read_text())["rows"]
    assert plain["macs"]["all"] == elementwise["macs"]["all"] < blocks["macs"]["all"]
    assert "K = 12, elementwise recomputed" in (tmp_path / "table.md").read_text()


def test_names_of_cases():
    case = Case("prediction", "", 20, BY_NEED, 64, 2, (64, 64), "bf16", compiled="default")
    assert str(case) == "K by need, bf16, compiled"
    assert str(replace(case, compiled="reduce-overhead")) == "K by need, bf16, compiled, reduce-overhead"
