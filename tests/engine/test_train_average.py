import torch

import err_seg
from err_seg.models.checkpoint import open_checkpoint
from tests.helpers.training import assert_resumes_exactly, assert_same_weights, metrics, run, training_state

AVERAGED = ("SOLVER.EMA.ENABLED", True, "SOLVER.EMA.DECAY", 0.75)


def test_average_is_final_and_the_weights_themselves_stay_in_checkpoints(run_cfg, tmp_path):
    cfg = run_cfg(*AVERAGED, "SOLVER.CHECKPOINT_PERIOD", 1, "SOLVER.CHECKPOINTS_KEPT", 6)
    expected = {name: weight.clone() for name, weight in err_seg.build_model(cfg).state_dict().items()}
    trained = {name for name, parameter in run(cfg).named_parameters() if parameter.requires_grad}
    for iteration in range(1, 7):
        weights = open_checkpoint(tmp_path / f"out/checkpoints/iter_{iteration:07d}/model.safetensors").weights
        for name in trained:
            expected[name] = 0.75 * expected[name] + 0.25 * weights[name]
    final = open_checkpoint(tmp_path / "out/model_final.safetensors").weights
    assert final.keys() == expected.keys()
    for name, weight in final.items():
        torch.testing.assert_close(weight, expected[name], rtol=1e-5, atol=1e-7)
    assert any(not torch.equal(final[name], weights[name]) for name in trained)

    # averaging changes nothing of the training itself
    run(run_cfg("OUTPUT_DIR", str(tmp_path / "without")))
    last = "checkpoints/iter_0000006/model.safetensors"
    assert_same_weights(tmp_path / "out" / last, tmp_path / "without" / last)
    assert metrics(tmp_path / "out", "total_loss") == metrics(tmp_path / "without", "total_loss")


def test_resumes_exactly(run_cfg, tmp_path, monkeypatch):
    assert_resumes_exactly(run_cfg, tmp_path, monkeypatch, *AVERAGED)


def test_average_begins_where_it_is_switched_on(run_cfg, tmp_path):
    run(run_cfg("SOLVER.MAX_ITER", 2))
    weights = open_checkpoint(tmp_path / "out/model_final.safetensors").weights
    assert training_state(tmp_path / "out", 2)["average"] == {}
    run(run_cfg("SOLVER.MAX_ITER", 4, *AVERAGED, "SOLVER.EMA.DECAY", 0.999999), resume=True)
    for name, weight in open_checkpoint(tmp_path / "out/model_final.safetensors").weights.items():
        torch.testing.assert_close(weight, weights[name], rtol=1e-4, atol=1e-6)
