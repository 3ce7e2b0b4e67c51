import json

import pytest
import torch
from safetensors.torch import load_file

import err_seg
from err_seg.engine import TrainingError, checkpoints, train
from tests.helpers.toy import liven
from tests.helpers.training import assert_same_weights, metrics, run, stop_after


@pytest.mark.parametrize("workers", [0, 2])
def test_resumed_run_equals_an_uninterrupted_one_bit_by_bit(run_cfg, tmp_path, monkeypatch, workers):
    options = ("MODEL.ESCF.DROP_PATH", 0.5, "DATALOADER.NUM_WORKERS", workers, "LOG.PERIOD", 3)
    run(run_cfg(*options, "OUTPUT_DIR", str(tmp_path / "straight")))
    cfg = run_cfg(*options)
    with monkeypatch.context() as patch:
        stop_after(patch, 5)  # a log line beyond the checkpoint that resuming goes back to
        with pytest.raises(KeyboardInterrupt):
            run(cfg)
    run(cfg, resume=True)
    assert_same_weights(tmp_path / "straight/model_final.safetensors", tmp_path / "out/model_final.safetensors")
    keys = ("iteration", "total_loss", "lr")
    assert metrics(tmp_path / "out", *keys) == metrics(tmp_path / "straight", *keys)
    assert len(metrics(tmp_path / "out", *keys)) == 2


def test_stochastic_depth_differs_between_iterations_and_seeds(run_cfg, tmp_path):
    # all images, whole, in every iteration, and nothing learnt: only stochastic depth can make losses differ
    still = ("SOLVER.BASE_LR", 0.0, "SOLVER.IMS_PER_BATCH", 10, "SOLVER.MAX_ITER", 2, "INPUT.MIN_SIZE_TRAIN", [16])
    still += ("INPUT.FLIP_PROB", 0.0, "INPUT.COLOR_AUG_SSD", False)
    losses = {}
    for seed, drop_path in ((0, 0.9), (1, 0.9), (0, 0.0)):
        cfg = run_cfg(*still, "MODEL.ESCF.DROP_PATH", drop_path)
        model = err_seg.build_model(cfg)
        liven(model)
        cfg.SEED = seed
        train(cfg, model)
        losses[seed, drop_path] = metrics(tmp_path / "out", "total_loss")
    assert losses[0, 0.0][0] == pytest.approx(losses[0, 0.0][1], rel=1e-6)
    assert losses[0, 0.9][0] != pytest.approx(losses[0, 0.9][1], rel=1e-5)
    assert losses[0, 0.9][0] != pytest.approx(losses[1, 0.9][0], rel=1e-5)


def test_damaged_newest_checkpoint_is_reported_and_the_one_before_used(run_cfg, tmp_path, caplog):
    cfg = run_cfg("SOLVER.MAX_ITER", 3, "SOLVER.CHECKPOINT_PERIOD", 1)
    run(cfg)
    newest = tmp_path / "out/checkpoints/iter_0000003"
    (newest / "training.pt").write_bytes((newest / "training.pt").read_bytes()[:1000])
    final = (tmp_path / "out/model_final.safetensors").rename(tmp_path / "final.safetensors")
    run(cfg, resume=True)
    assert f"damaged checkpoint: {newest / 'training.pt'}" in caplog.text
    assert_same_weights(final, tmp_path / "out/model_final.safetensors")
    assert metrics(tmp_path / "out", "iteration") == [0, 1, 2]
    assert newest.is_dir()
    assert newest.with_name("iter_0000003.damaged").is_dir()


def test_resume_without_checkpoints_starts(run_cfg, tmp_path):
    run(run_cfg("SOLVER.MAX_ITER", 1), resume=True)
    assert metrics(tmp_path / "out", "iteration") == [0]


def test_longer_training_goes_on_with_changed_settings_and_names_them(run_cfg, tmp_path, caplog):
    run(run_cfg("SOLVER.MAX_ITER", 2))
    run(run_cfg("SOLVER.MAX_ITER", 3, "SOLVER.BASE_LR", 0.5, "SOLVER.WARMUP_ITERS", 0), resume=True)
    assert "SOLVER.BASE_LR: 0.001 → 0.5" in caplog.text
    assert metrics(tmp_path / "out", "iteration") == [0, 1, 2]
    assert metrics(tmp_path / "out", "lr")[2] == pytest.approx(0.5 * 0.25)  # (1 + cos(2π/3)) / 2
    with pytest.raises(TrainingError, match="_TUNING"):
        run(run_cfg("SOLVER.MAX_ITER", 4, "MODEL.CLIP.TEXT_TUNING", "none"), resume=True)


def test_a_new_run_sets_the_checkpoints_of_an_earlier_one_aside(run_cfg, tmp_path, monkeypatch):
    run(run_cfg("SOLVER.MAX_ITER", 2))
    with monkeypatch.context() as patch:
        stop_after(patch, 1)
        with pytest.raises(KeyboardInterrupt):
            run(run_cfg())
    assert (tmp_path / "out/checkpoints.old-1/iter_0000002").is_dir()
    run(run_cfg("SOLVER.MAX_ITER", 1), resume=True)
    assert metrics(tmp_path / "out", "iteration") == [0]


def name_as_the_first_version_did(folder):
    """Rewrite a checkpoint under the names of version 0.1, whose head was no module of its own."""

    def renamed(entries):
        return {name.removeprefix("head."): value for name, value in entries.items()}

    err_seg.save_weights(renamed(load_file(folder / checkpoints.WEIGHTS)), folder / checkpoints.WEIGHTS)
    state = torch.load(folder / checkpoints.TRAINING, weights_only=True)
    assert any(name.startswith("head.") for name in state["optimizer"])
    state |= {key: renamed(state[key]) for key in ("optimizer", "average")}
    torch.save(state, folder / checkpoints.TRAINING)
    facts = {name: checkpoints._facts(folder / name) for name in (checkpoints.WEIGHTS, checkpoints.TRAINING)}
    (folder / checkpoints.HASHES).write_text(json.dumps(facts))


def test_a_run_of_the_first_version_goes_on_bit_by_bit(run_cfg, tmp_path, monkeypatch):
    run(run_cfg("SOLVER.EMA.ENABLED", True, "OUTPUT_DIR", str(tmp_path / "straight")))
    cfg = run_cfg("SOLVER.EMA.ENABLED", True)
    with monkeypatch.context() as patch:
        stop_after(patch, 5)
        with pytest.raises(KeyboardInterrupt):
            run(cfg)
    for folder in (tmp_path / "out/checkpoints").glob("iter_*"):
        name_as_the_first_version_did(folder)
    run(cfg, resume=True)
    assert_same_weights(tmp_path / "straight/model_final.safetensors", tmp_path / "out/model_final.safetensors")
