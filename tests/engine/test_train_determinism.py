from tests.helpers.training import assert_resumes_exactly, assert_same_weights, run


def test_deterministic_algorithms_train_and_evaluate_as_the_others_do(run_cfg, tmp_path):
    options = ("SOLVER.MAX_ITER", 2, "TEST.EVAL_PERIOD", 2, "MODEL.ESCF.DROP_PATH", 0.5)
    run(run_cfg(*options, "OUTPUT_DIR", str(tmp_path / "free")))
    run(run_cfg(*options, "SOLVER.DETERMINISTIC", True))
    assert_same_weights(tmp_path / "free/model_final.safetensors", tmp_path / "out/model_final.safetensors")


def test_resumes_exactly_also_on_the_poly_curve(run_cfg, tmp_path, monkeypatch):
    options = ("SOLVER.DETERMINISTIC", True, "MODEL.ESCF.DROP_PATH", 0.5, "SOLVER.LR_SCHEDULER_NAME", "WarmupPolyLR")
    assert_resumes_exactly(run_cfg, tmp_path, monkeypatch, *options)
