"""A run that one engine began goes on with the other, as if nothing had happened."""

import shutil

import pytest
import torch

import err_seg
from err_seg.engine.checkpoints import Checkpoints, TrainingState
from err_seg.models.checkpoint import CheckpointError
from tests.helpers.training import assert_same_weights, lines, metrics, run, stop_after, training_state

pytest.importorskip("err_seg.d2", exc_type=ImportError)  # the reason names what is lacking
pytestmark = pytest.mark.d2

import err_seg.d2 as d2
from err_seg.d2 import trainer as d2_trainer

ENGINES = {"plain": run, "detectron2": d2_trainer.train}
LONG = ("MODEL.ESCF.DROP_PATH", 0.5, "SOLVER.MAX_ITER", 16, "SOLVER.CHECKPOINT_PERIOD", 5, "LOG.PERIOD", 3)
LONG += ("TEST.EVAL_PERIOD", 4)


def stop_either_after(monkeypatch, iterations):
    """Make the next run of either engine end after so many iterations, as a kill would, saving nothing."""
    stop_after(monkeypatch, iterations)
    before_step, begun = d2.hooks.TrainerHook.before_step, []

    def counted(hook):
        if len(begun) == iterations:
            raise KeyboardInterrupt
        begun.append(None)
        before_step(hook)

    monkeypatch.setattr(d2.hooks.TrainerHook, "before_step", counted)


def assert_same_files(first, second):
    """Compare what two runs left: lines, states, weights and passed over pairs, to what sums in another order allow."""
    for one, other in zip(lines(first), lines(second), strict=True):
        assert other == pytest.approx(one, rel=1e-6)
    one, other = (training_state(folder, 16) for folder in (first, second))
    assert other.pop("teacher") == one.pop("teacher") == ""
    torch.testing.assert_close(other, one, rtol=1e-4, atol=1e-9)
    for file in ("model_final.safetensors", "model_best.safetensors"):
        assert_same_weights(first / file, second / file, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(("first", "second"), [("plain", "detectron2"), ("detectron2", "plain")])
def test_killed_run_goes_on_with_the_other_engine(damaged_cfg, tmp_path, monkeypatch, first, second):
    def cfg(name):
        return damaged_cfg(*LONG, "OUTPUT_DIR", str(tmp_path / name))

    with monkeypatch.context() as patch:
        stop_either_after(patch, 13)
        with pytest.raises(KeyboardInterrupt):
            ENGINES[first](cfg("switched"))
    assert Checkpoints(tmp_path / "switched", 2).newest_first()[0].name == "iter_0000010"
    ENGINES[second](cfg("switched"), resume=True)
    for engine, train in ENGINES.items():
        train(cfg(engine))
        assert_same_files(tmp_path / engine, tmp_path / "switched")
        damaged = [(tmp_path / name / "damaged.txt").read_text() for name in (engine, "switched")]
        assert damaged[0] == damaged[1]


def test_place_in_the_images_is_kept_where_their_number_changes(run_cfg, tmp_path):
    for name, engines in {"plain": ("plain",) * 3, "both": ("plain", "detectron2", "plain")}.items():
        for engine, last, pictures in zip(engines, (2, 4, 6), (4, 3, 4), strict=True):
            out = ("OUTPUT_DIR", str(tmp_path / name))
            cfg = run_cfg("SOLVER.MAX_ITER", last, "SOLVER.IMS_PER_BATCH", pictures, *out)
            ENGINES[engine](cfg, resume=last > 2)
    assert training_state(tmp_path / "both", 6)["pictures"] == 2 * 4 + 2 * 3 + 2 * 4
    assert metrics(tmp_path / "both", "total_loss") == pytest.approx(
        metrics(tmp_path / "plain", "total_loss"), rel=1e-6
    )


def test_loss_scaling_and_what_was_counted_carry_over(run_cfg, tmp_path):
    cfg = run_cfg("SOLVER.MAX_ITER", 3, "DATASETS.TEST", [])
    scaler = torch.amp.GradScaler("cpu", init_scale=64.0)
    scaler.scale(torch.zeros(()))
    state = TrainingState(iteration=2, pictures=8, scaler=scaler.state_dict(), skipped=5, best=7.0)
    Checkpoints(tmp_path / "out", 2).save(err_seg.build_model(cfg).state_dict(), state)
    trainer = d2.Trainer(cfg)
    trainer._trainer.grad_scaler = torch.amp.GradScaler("cpu")  # as detectron2's trainer for fp16 has one
    trainer.resume_or_load()
    trainer.train()
    saved = training_state(tmp_path / "out", 3)
    assert (saved["scaler"]["scale"], saved["skipped"], saved["best"]) == (64.0, 5, 7.0)
    assert metrics(tmp_path / "out", "iteration", "loss_scale", "skipped_steps") == [(2, 64.0, 5)]


@pytest.mark.parametrize("engine", ENGINES)
def test_run_of_version_0_1_with_detectron2_goes_on(run_cfg, tmp_path, monkeypatch, engine):
    more = ("SOLVER.MAX_ITER", 16, "TEST.EVAL_PERIOD", 2, "LOG.PERIOD", 3)
    run(run_cfg(*more, "OUTPUT_DIR", str(tmp_path / "straight")))
    out, cfg = tmp_path / "out", run_cfg(*more)
    with monkeypatch.context() as patch:
        stop_either_after(patch, 5)
        with pytest.raises(KeyboardInterrupt):
            d2_trainer.train(cfg)
    state = training_state(out, 4)
    trainer = d2.Trainer(cfg)
    trainer.resume_or_load()
    hooks = {"WriteReport": {"losses": state["losses"]}, "EvaluateAndKeepBest": {"mean": state["best"]}}
    saved = {**trainer.state_dict(), "iteration": 3, "hooks": hooks}
    torch.save({"model": trainer.model.state_dict(), "trainer": saved, "iteration": 3}, out / "model_0000003.pth")
    (out / "last_checkpoint").write_text("model_0000003.pth")
    shutil.rmtree(out / "checkpoints")
    ENGINES[engine](cfg, resume=True)
    assert_same_files(tmp_path / "straight", out)


def test_checkpoint_of_another_trainer_is_told(run_cfg, tmp_path):
    model = err_seg.build_model(run_cfg())
    (tmp_path / "out").mkdir()
    torch.save({"model": model.state_dict()}, tmp_path / "out/model_final.pth")
    (tmp_path / "out/last_checkpoint").write_text("model_final.pth")
    with pytest.raises(CheckpointError, match=r"model_final\.pth.*MODEL\.WEIGHTS"):
        run(run_cfg(), resume=True)


@pytest.mark.parametrize("first", ENGINES)
def test_new_run_sets_the_checkpoints_of_an_earlier_one_aside(run_cfg, tmp_path, first):
    out, cfg = tmp_path / "out", run_cfg("SOLVER.MAX_ITER", 2)
    ENGINES[first](cfg)
    (out / "last_checkpoint").write_text("model_0000003.pth")
    d2_trainer.train(run_cfg("SOLVER.MAX_ITER", 1))
    assert [path.name for path in (out / "checkpoints").iterdir()] == ["iter_0000001"]
    assert (out / "checkpoints.old-1/iter_0000002").is_dir()
    assert (out / "last_checkpoint.old").is_file()
    d2.Trainer(cfg).train()  # without resume_or_load
    assert [path.name for path in (out / "checkpoints").iterdir()] == ["iter_0000002"]
    assert (out / "checkpoints.old-2/iter_0000001").is_dir()
