"""tools/train_net.py --engine detectron2 beside --engine plain: the same losses, weights, figures and files."""

import itertools
import json
import os
import signal
import subprocess
from contextvars import Context
from types import SimpleNamespace

import pytest
import torch

from err_seg.config import ConfigError
from err_seg.engine import build_optimizer, build_schedule, step
from err_seg.engine.run_log import RunLog
from err_seg.models.checkpoint import open_checkpoint, save_weights
from err_seg.plugins import LOSS_TERMS
from err_seg.utils.errors import EvaluationError, TrainingError
from err_seg.utils.files import file_sha256
from tests.helpers.processes import kill_a_loader_process
from tests.helpers.training import another_run, assert_same_weights, command, environment, lines, metrics
from tests.helpers.training import run as plain_train

pytest.importorskip("err_seg.d2", exc_type=ImportError)  # the reason names what is lacking
pytestmark = pytest.mark.d2

from detectron2.engine import HookBase

import err_seg.d2 as d2
from err_seg.d2 import hooks
from err_seg.d2 import trainer as d2_trainer

WITH = ("--engine", "detectron2")
STOCHASTIC = ("MODEL.ESCF.DROP_PATH", 0.5, "SOLVER.MAX_ITER", 20, "SOLVER.CHECKPOINT_PERIOD", 7)


def in_out(tmp_path, name):
    return "OUTPUT_DIR", str(tmp_path / name)


def run_both(train_net, tmp_path, *arguments):
    """Run err-seg train with each engine; return the folders of the plain one and of detectron2."""
    for engine in ("plain", "detectron2"):
        assert train_net("--engine", engine, *arguments, *in_out(tmp_path, engine))[0] == 0
    return tmp_path / "plain", tmp_path / "detectron2"


def results(folder):
    benchmarks = json.loads((folder / "results.json").read_text())["benchmarks"]
    return {
        name: {key: entry[key] for key in ("metrics", "class_pixels", "pictures")} for name, entry in benchmarks.items()
    }


def test_same_losses_weights_figures_and_files_as_the_plain_engine(train_net, tmp_path):
    plain, other = run_both(train_net, tmp_path, *STOCHASTIC)
    for key in ("iteration", "lr"):
        assert metrics(other, key) == metrics(plain, key)
    losses = metrics(other, "total_loss")
    assert losses == pytest.approx(metrics(plain, "total_loss"), rel=1e-6)
    assert len(losses) == 20
    keys = [json.loads((folder / "metrics.json").read_text().splitlines()[0]).keys() for folder in (plain, other)]
    assert keys[0] == keys[1]
    assert_same_weights(*(folder / "model_final.safetensors" for folder in (plain, other)), rtol=1e-5, atol=1e-7)
    assert results(other) == results(plain)
    files = [{str(path.relative_to(folder)) for path in folder.rglob("*")} for folder in (plain, other)]
    assert files[0] == files[1]
    classes = "inference/toy_val/classes.csv"
    assert (other / classes).read_text() == (plain / classes).read_text()


def test_clipping_schedule_determinism_and_evaluation_are_the_plain_engines(train_net, tmp_path, monkeypatch):
    clip = ("SOLVER.CLIP_GRADIENTS.ENABLED", True, "SOLVER.CLIP_GRADIENTS.CLIP_TYPE", "full_model")
    clip += ("SOLVER.CLIP_GRADIENTS.CLIP_VALUE", 0.01, "SOLVER.LR_SCHEDULER_NAME", "WarmupPolyLR")
    options = (*clip, "SOLVER.DETERMINISTIC", True, "TEST.EVAL_PERIOD", 4, "SOLVER.MAX_ITER", 6)
    options += ("VIS_PERIOD", 4)
    loss, modes = step.segmentation_loss, set()

    def looking(*arguments, **more):
        modes.add(torch.are_deterministic_algorithms_enabled())
        return loss(*arguments, **more)

    monkeypatch.setattr(step, "segmentation_loss", looking)
    folders = run_both(train_net, tmp_path, *options)
    assert modes == {True}
    assert not torch.are_deterministic_algorithms_enabled()
    plain, other = map(lines, folders)
    assert [line.keys() for line in plain] == [line.keys() for line in other]
    for first, second in zip(plain, other, strict=True):
        assert second == pytest.approx(first, rel=1e-5)
    for name in ("model_final.safetensors", "model_best.safetensors"):
        assert_same_weights(*(folder / name for folder in folders), rtol=1e-5, atol=1e-7)
    images = [(folder / "vis/iter_0000004.png").read_bytes() for folder in folders]
    assert images[0] == images[1]
    for file, weights in (
        ("evaluations/iter_0000004/results.json", "iteration 4 of {}"),
        ("results.json", "{}/model_final.safetensors"),  # the last one is that of the finished run
    ):
        written = [json.loads((folder / file).read_text()) for folder in folders]
        found = [entry["benchmarks"]["toy_val"]["settings"]["weights"] for entry in written]
        assert found == [weights.format(folder) for folder in folders]


def test_best_result_survives_a_stop(run_cfg, tmp_path, monkeypatch):
    figures = iter((5.0, 3.0, 4.0))
    monkeypatch.setattr("err_seg.engine.periodic_eval.mean_metric", lambda results, name: next(figures))
    d2_trainer.train(run_cfg("SOLVER.MAX_ITER", 2, "TEST.EVAL_PERIOD", 2))
    best = (tmp_path / "out/model_best.safetensors").read_bytes()
    d2_trainer.train(run_cfg("SOLVER.MAX_ITER", 6, "TEST.EVAL_PERIOD", 2), resume=True)
    assert (tmp_path / "out/model_best.safetensors").read_bytes() == best


def test_random_numbers_follow_from_seed_iteration_and_rank(toy_cfg, monkeypatch):
    def drawn(seed, iteration, rank):
        monkeypatch.setattr(hooks.comm, "get_rank", lambda: rank)
        hooks.TrainerHook.before_step(SimpleNamespace(cfg=toy_cfg("SEED", seed), iteration=iteration))
        return torch.rand(4).tolist()

    places = list(itertools.product((0, 7), (0, 1, 2), (0, 1, 2)))
    seen = [drawn(*place) for place in places]
    assert len(set(map(str, seen))) == len(places)
    assert [drawn(*place) for place in places] == seen


def test_poly_schedule_is_that_of_detectron2s_project(toy_cfg, toy_model):
    lr_scheduler = pytest.importorskip("detectron2.projects.deeplab.lr_scheduler", exc_type=ImportError)
    options = ("SOLVER.MAX_ITER", 50, "SOLVER.WARMUP_ITERS", 10, "SOLVER.LR_SCHEDULER_NAME", "WarmupPolyLR")
    cfg = toy_cfg(*options, "SOLVER.POLY_LR_POWER", 0.8, "SOLVER.POLY_LR_CONSTANT_ENDING", 0.2)
    ours, theirs = (build_optimizer(toy_model(), cfg) for _ in range(2))
    schedules = (
        build_schedule(ours, cfg),
        lr_scheduler.WarmupPolyLR(*(theirs, 50), warmup_iters=10, power=0.8, constant_ending=0.2),
    )
    for _ in range(50):
        rates = [[group["lr"] for group in optimizer.param_groups] for optimizer in (ours, theirs)]
        assert rates[0] == pytest.approx(rates[1], rel=1e-12)
        for optimizer, schedule in zip((ours, theirs), schedules, strict=True):
            optimizer.step()
            schedule.step()


def test_stopped_run_goes_on_where_it_was(train_net, tmp_path, monkeypatch):
    assert train_net(*WITH, *STOCHASTIC, "LOG.PERIOD", 3, *in_out(tmp_path, "straight"))[0] == 0
    seed = d2.hooks.TrainerHook.before_step

    def stop_in_iteration_10(hook):
        seed(hook)
        if hook.trainer.iter == 10:
            os.kill(os.getpid(), signal.SIGTERM)

    arguments = (*WITH, *STOCHASTIC, "LOG.PERIOD", 3, "DATALOADER.NUM_WORKERS", 2, *in_out(tmp_path, "stopped"))
    with monkeypatch.context() as patch:
        patch.setattr(d2.hooks.TrainerHook, "before_step", stop_in_iteration_10)
        status, _, errors = train_net(*arguments)
    assert status == 143
    assert "stopped after 11 iterations" in errors
    assert not (tmp_path / "stopped/model_final.safetensors").exists()
    assert train_net("--engine", "auto", "--resume", *arguments[2:])[0] == 0
    assert_same_weights(tmp_path / "straight/model_final.safetensors", tmp_path / "stopped/model_final.safetensors")
    keys = ("iteration", "total_loss", "lr")
    assert metrics(tmp_path / "stopped", *keys) == metrics(tmp_path / "straight", *keys)
    assert results(tmp_path / "stopped") == results(tmp_path / "straight")
    left = sorted(path.name for path in (tmp_path / "stopped/checkpoints").iterdir())
    assert left == ["iter_0000014", "iter_0000020"]


def test_damaged_pairs_are_passed_over_as_by_the_plain_engine(damaged_cfg, tmp_path):
    plain_train(damaged_cfg(*in_out(tmp_path, "plain")))
    d2_trainer.train(damaged_cfg(*in_out(tmp_path, "detectron2"), "DATALOADER.NUM_WORKERS", 2))
    plain, other = tmp_path / "plain", tmp_path / "detectron2"
    assert metrics(other, "total_loss") == pytest.approx(metrics(plain, "total_loss"), rel=1e-6)
    assert (other / "damaged.txt").read_text() == (plain / "damaged.txt").read_text()


def test_damaged_pair_ends_training_and_evaluation_with_one_sentence(damaged_cfg, tmp_path):
    cfg = damaged_cfg("DATALOADER.SKIP_DAMAGED", False, "DATALOADER.NUM_WORKERS", 1, "SOLVER.CHECKPOINT_PERIOD", 1)
    with pytest.raises(
        TrainingError, match=r"^[^\n]*p[37]\.png: [^\n]*checkpoint[^\n]*SKIP_DAMAGED True[^\n]* --resume$"
    ):
        d2_trainer.train(cfg)
    plain_train(damaged_cfg(*in_out(tmp_path, "trained"), "SOLVER.MAX_ITER", 1))
    weights = str(tmp_path / "trained/model_final.safetensors")
    again = damaged_cfg("DATASETS.TEST", ["damaged_train"], "MODEL.WEIGHTS", weights, "DATALOADER.NUM_WORKERS", 1)
    with pytest.raises(EvaluationError, match=r"^[^\n]*p3\.png: [^\n]*; nothing of this evaluation is kept[^\n]*$"):
        d2_trainer.evaluate(again)


def test_killed_loader_process_ends_training_with_one_sentence(run_cfg, tmp_path, monkeypatch):
    cfg = run_cfg("DATALOADER.NUM_WORKERS", 2, "SOLVER.MAX_ITER", 12)
    seed = d2.hooks.TrainerHook.before_step

    def kill_in_iteration_3(hook):
        seed(hook)
        if hook.trainer.iter == 3:
            kill_a_loader_process()

    with monkeypatch.context() as patch:
        patch.setattr(d2.hooks.TrainerHook, "before_step", kill_in_iteration_3)
        with pytest.raises(
            TrainingError, match=r"^a loader process .*; the last good checkpoint is .*iter_\d+\. Then rerun with --re"
        ):
            d2_trainer.train(cfg)
    d2_trainer.train(cfg, resume=True)
    assert metrics(tmp_path / "out", "iteration") == list(range(12))


def test_engines_evaluate_each_others_weights(train_net, tmp_path):
    for trained, evaluated in (("plain", "detectron2"), ("detectron2", "plain")):
        out = in_out(tmp_path, trained)
        assert train_net("--engine", trained, *out)[0] == 0
        file = "model_final.safetensors"
        again = in_out(tmp_path, f"{evaluated} again")
        status, output, _ = train_net(
            *("--engine", evaluated, "--eval-only"), "MODEL.WEIGHTS", tmp_path / trained / file, *again
        )
        assert status == 0
        assert "| toy_val" in output
        assert results(tmp_path / f"{evaluated} again") == results(tmp_path / trained)


def test_all_settings_of_evaluation_count(train_net, tmp_path):
    weights = tmp_path / "weights.safetensors"
    train_net("--engine", "plain", "DATASETS.TEST", "[]", *in_out(tmp_path, "trained"))
    os.replace(tmp_path / "trained/model_final.safetensors", weights)
    options = ("TEST.AUG.ENABLED", True, "TEST.BATCH_SIZE", 3, "TEST.BOUNDARY_IOU", True, "TEST.SAVE", "['png', 'rle']")
    plain, other = run_both(train_net, tmp_path, "--eval-only", "MODEL.WEIGHTS", weights, *options)
    for file in ("results.json", "inference/toy_val/sem_seg_predictions.json"):  # settings included
        assert (other / file).read_text() == (plain / file).read_text()


@pytest.mark.parametrize("is_calibrated", [True, False])
def test_confidence_is_counted_as_by_the_plain_engine(train_net, tmp_path, is_calibrated):
    weights = tmp_path / "weights.safetensors"
    train_net("--engine", "plain", "DATASETS.TEST", "[]", "SOLVER.MAX_ITER", 1, *in_out(tmp_path, "trained"))
    facts = {"calibration": {"temperature": 0.7, "offset": 0.2}} if is_calibrated else {}
    save_weights(open_checkpoint(tmp_path / "trained/model_final.safetensors").weights, weights, facts)
    options = ("TEST.CALIBRATION", True, "TEST.BOUNDARY_IOU", True)
    plain, other = run_both(train_net, tmp_path, "--eval-only", "MODEL.WEIGHTS", weights, *options)
    assert (other / "results.json").read_text() == (plain / "results.json").read_text()  # settings included
    entry = json.loads((other / "results.json").read_text())["benchmarks"]["toy_val"]
    assert {"ECE", "Brier", "AURC"} < entry["metrics"].keys()
    assert len(entry["risk_coverage"]) == 20
    assert entry["settings"].get("calibration", {}).get("temperature") == (0.7 if is_calibrated else None)


def test_windows_borders_and_parts_are_those_of_the_plain_engine(train_net, tmp_path):
    weights = tmp_path / "weights.safetensors"
    train_net("--engine", "plain", "DATASETS.TEST", "[]", *in_out(tmp_path, "trained"))
    os.replace(tmp_path / "trained/model_final.safetensors", weights)
    for windows in (("TEST.TILE", 40), ("TEST.REFINE", True), ("TEST.TILE", 40, "TEST.REFINE", True)):
        options = (*windows, "TEST.NUM_IMAGES", 3, "TEST.BATCH_SIZE", 2, "TEST.SAVE", "['png', 'rle']")
        plain, other = run_both(train_net, tmp_path, "--eval-only", "MODEL.WEIGHTS", weights, *options)
        for file in ("results.json", "inference/toy_val/sem_seg_predictions.json"):  # settings included
            assert (other / file).read_text() == (plain / file).read_text()
        assert results(other)["toy_val"]["pictures"] == 3
        labels = other / "inference/toy_val/labels"
        assert sorted(file.name for file in labels.iterdir()) == ["p0.png", "p2.png", "p4.png"]


def test_command_says_which_engine_and_logs_what_detectron2_says(run_cfg, tmp_path):
    line = command(run_cfg("SOLVER.MAX_ITER", 1), tmp_path / "run.yaml", "--engine", "auto")
    done = subprocess.run(line, env=environment(), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0
    log = (tmp_path / "out/log.txt").read_text()
    for words in ("engine: detectron2, which is installed", "Starting training from iteration 0", "total_loss"):
        assert log.count(words) == done.stderr.count(words) == 1
    assert "copypaste: Task: sem_seg" in done.stdout


def test_nothing_to_evaluate(train_net, tmp_path, monkeypatch):
    shown = []
    monkeypatch.setattr(RunLog, "image", lambda _, iteration, image: shown.append((iteration, image.shape[2])))
    status, _, _ = train_net(*WITH, "DATASETS.TEST", "[]", "VIS_PERIOD", 1)
    assert status == 0
    assert shown == [(0, 3)]
    assert results(tmp_path / "out") == {}
    assert (tmp_path / "out/vis/iter_0000001.png").is_file()


def test_scalars_of_own_hooks_reach_the_log(run_cfg, tmp_path):
    class Counting(HookBase):
        def after_step(self):
            self.trainer.storage.put_scalar("own/number", float(self.trainer.iter))
            if self.trainer.iter == 4:
                self.trainer.storage.put_scalar("own/once", 8.0)

    trainer = d2.Trainer(run_cfg("LOG.PERIOD", 2))
    trainer.register_hooks([Counting()])
    trainer.resume_or_load(resume=False)
    trainer.train()
    written = lines(tmp_path / "out")
    assert [line["own/number"] for line in written] == [0.5, 2.5, 4.5]  # means, as of the losses
    assert ["own/once" in line for line in written] == [False, False, True]
    assert [set(line) for line in written[:2]] == [{"iteration", "lr", "total_loss", "own/number"}] * 2


def test_terms_of_the_loss_are_logged_one_by_one_as_by_the_plain_engine(train_net, tmp_path, monkeypatch):
    monkeypatch.setitem(LOSS_TERMS._parts, "size", lambda cfg: lambda inputs: inputs.logits.square().mean())
    own = ("MODEL.LOSS.TERMS", "['size']", "MODEL.LOSS.TERM_WEIGHTS", "[0.5]", "SOLVER.MAX_ITER", 3)
    plain, other = run_both(train_net, tmp_path, *own)
    for line in lines(plain):
        assert line["total_loss"] == pytest.approx(line["loss_sem_seg"] + line["loss_size"])
    for key in ("total_loss", "loss_sem_seg", "loss_size"):
        assert metrics(other, key) == pytest.approx(metrics(plain, key), rel=1e-6)


def test_weights_are_chosen_on_val_and_the_last_evaluation_runs_once(run_cfg, tmp_path, monkeypatch):
    evaluated, test = [], d2_trainer.Trainer.test.__func__

    def recording(kind, cfg, *arguments):
        evaluated.append((list(cfg.DATASETS.TEST), cfg.OUTPUT_DIR))
        return test(kind, cfg, *arguments)

    monkeypatch.setattr(d2_trainer.Trainer, "test", classmethod(recording))
    cfg = run_cfg("SOLVER.MAX_ITER", 4, "TEST.EVAL_PERIOD", 2, "DATASETS.VAL", ["toy_train"])
    assert d2_trainer.train(cfg) is None
    out = tmp_path / "out"
    assert evaluated == [(["toy_train"], f"{out}/evaluations/iter_{done:07d}") for done in (2, 4)]
    (result,) = d2_trainer.train(run_cfg("SOLVER.MAX_ITER", 2, "TEST.EVAL_PERIOD", 2))
    assert evaluated[2:] == [(["toy_val"], str(out))]
    assert result.settings["source"]["sha256"] == file_sha256(out / "model_final.safetensors")


def test_resumed_run_takes_the_configurations_learning_rate_and_says_so(run_cfg, tmp_path, caplog):
    rates = {}
    for name, train in {"detectron2": d2_trainer.train, "plain": plain_train}.items():
        out = in_out(tmp_path, name)
        train(run_cfg("SOLVER.MAX_ITER", 2, *out))
        caplog.clear()
        train(run_cfg("SOLVER.MAX_ITER", 4, "SOLVER.BASE_LR", 1e-5, "SOLVER.WEIGHT_DECAY", 0.5, *out), resume=True)
        assert "SOLVER.BASE_LR: 0.001 → 1e-05" in caplog.text
        rates[name] = metrics(tmp_path / name, "lr")
    assert rates["detectron2"] == pytest.approx(rates["plain"], rel=1e-12)
    assert 0 < rates["detectron2"][3] < 1e-5
    trainer = d2.Trainer(run_cfg("SOLVER.WEIGHT_DECAY", 0.25, *in_out(tmp_path, "detectron2")))
    trainer.resume_or_load()
    assert {group["weight_decay"] for group in trainer.optimizer.param_groups} == {0.0, 0.25}


def test_failure_in_the_last_iteration_leaves_no_final_weights(run_cfg, tmp_path, monkeypatch):
    cfg, segmentation_loss = run_cfg("SOLVER.MAX_ITER", 2, "SOLVER.CHECKPOINT_PERIOD", 1), step.segmentation_loss
    losses = iter((1.0, float("nan")))
    with monkeypatch.context() as patch:
        patch.setattr(step, "segmentation_loss", lambda *a, **k: segmentation_loss(*a, **k) * next(losses))
        with pytest.raises(TrainingError, match=r"images .*p\d\.png.*SOLVER\.BASE_LR"):
            d2_trainer.train(cfg)
    final = tmp_path / "out/model_final.safetensors"
    assert not final.exists()
    d2_trainer.train(cfg, resume=True)
    assert final.exists()
    final.unlink()  # as a kill just before it was written would
    d2_trainer.train(cfg, resume=True)
    assert final.exists()


def test_weights_that_are_not_finite_are_not_saved(run_cfg, tmp_path, monkeypatch):
    step = torch.optim.AdamW.step

    def break_a_weight(optimizer, *arguments):
        step(optimizer, *arguments)
        optimizer.param_groups[0]["params"][0].data.fill_(float("inf"))

    monkeypatch.setattr(torch.optim.AdamW, "step", break_a_weight)
    with pytest.raises(TrainingError, match="weights are not finite"):
        d2_trainer.train(run_cfg("SOLVER.MAX_ITER", 2, "SOLVER.CHECKPOINT_PERIOD", 1))
    assert not [*(tmp_path / "out").glob("**/*.safetensors")]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (("SOLVER.STEPS", (10,)), "SOLVER.STEPS has no effect"),
        (("SOLVER.LR_SCHEDULER_NAME", "WarmupMultiStepLR"), "SOLVER.LR_SCHEDULER_NAME must be one of"),
        (("SOLVER.AMP.ENABLED", True, "SOLVER.PRECISION", "bf16"), "SOLVER.AMP.ENABLED contradicts"),
        (("DATASETS.TRAIN", ()), "DATASETS.TRAIN must be"),
    ],
)
def test_keys_of_detectron2_that_do_not_count_are_refused(run_cfg, settings, words):
    cfg = d2.to_detectron2(run_cfg())
    cfg.merge_from_list([*settings])
    with pytest.raises(ConfigError, match=words):
        d2.Trainer(cfg)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("PARALLEL", "fsdp"), ("ACCUMULATION_STEPS", 2), ("COMPILE", "eager"), ("PRECISION", "fp16")),
        ("EMA.ENABLED", True),
    ],
)
def test_settings_that_cannot_be_honoured_are_refused(train_net, key, value):
    status, _, errors = train_net(*WITH, f"SOLVER.{key}", value)
    assert status == 1
    assert f"SOLVER.{key}" in errors
    assert errors.count("\n") == 1


def test_two_processes_on_the_processor_are_refused(run_cfg, monkeypatch):
    monkeypatch.setattr(d2.trainer.comm, "get_world_size", lambda: 2)
    with pytest.raises(ConfigError, match="--engine plain"):
        d2.Trainer(run_cfg())


def test_precision_and_recomputation_count(run_cfg, tmp_path):
    losses = {}
    for name, options in {
        "fp32": (),
        "recomputed": ("SOLVER.ACTIVATION_CHECKPOINTING", True),
        "bf16": ("SOLVER.PRECISION", "bf16"),
    }.items():
        cfg = run_cfg(*options, "OUTPUT_DIR", str(tmp_path / name), "SOLVER.MAX_ITER", 2, "DATASETS.TEST", [])
        d2_trainer.train(cfg)
        losses[name] = metrics(tmp_path / name, "total_loss")
    assert losses["recomputed"] == pytest.approx(losses["fp32"], rel=1e-6)
    assert losses["bf16"] == pytest.approx(losses["fp32"], rel=0.05)
    assert losses["bf16"] != pytest.approx(losses["fp32"], rel=1e-6)


def test_broken_loss_stops_with_advice(train_net, monkeypatch):
    monkeypatch.setattr(step, "segmentation_loss", lambda logits, *_, **__: logits.sum() * float("nan"))
    status, _, errors = train_net(*WITH)
    assert status == 1
    assert "infinite or NaN" in errors
    assert "SOLVER.BASE_LR" in errors


class Evil:
    def __reduce__(self):
        return os.mkdir, ("unpickled",)


@pytest.mark.parametrize("kind", ["missing", "damaged", "evil", "missing.safetensors"])
def test_weights_that_cannot_be_read_are_one_line_and_nothing_is_executed(train_net, tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / (kind if "." in kind else f"{kind}.pth")
    if kind == "damaged":
        file.write_bytes(b"not a checkpoint")
    elif kind == "evil":
        torch.save({"model": Evil()}, file)
    for more in ((), ("--eval-only",)):
        status, _, errors = train_net(*WITH, *more, "MODEL.WEIGHTS", file)
        assert status == 1
        last = errors.splitlines()[-1]
        assert last.startswith("error: ")
        assert file.name in last
    assert not (tmp_path / "unpickled").exists()


def test_one_run_at_a_time_writes_to_a_folder(run_cfg, tmp_path):
    cfg = run_cfg("SOLVER.MAX_ITER", 1)
    trainer = d2.Trainer(cfg)
    with another_run(tmp_path / "out"):
        for begin in (trainer.resume_or_load, trainer.train):
            with pytest.raises(TrainingError, match="another run"):
                begin()
        with pytest.raises(EvaluationError, match="another run"):
            d2_trainer.evaluate(cfg)
    trainer.resume_or_load(resume=False)
    with pytest.raises(TrainingError, match="another run"):
        Context().run(plain_train, cfg)  # from the moment on that says where the run starts
    trainer.train()
    Context().run(plain_train, cfg)
