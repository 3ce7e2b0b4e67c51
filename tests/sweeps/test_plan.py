import pytest
from conftest import REPOSITORY

from err_seg.sweeps import load_sweep, plan_runs

TEXT = """
title: T
base: base.yaml
variants:
  full: {}
  other training: {settings: {MODEL.CRM.NUM_KEPT_TRAIN: 3}}
  other K: {settings: {MODEL.CRM.NUM_KEPT: 3}}
  other place: {settings: {MODEL.DEVICE: cpu, LOG.PERIOD: 3, DATASETS.ROOT: /data, SOLVER.ACCUMULATION_STEPS: 2}}
"""


@pytest.fixture
def sweep(tmp_path):
    (tmp_path / "base.yaml").write_text("{}\n")
    (tmp_path / "sweep.yaml").write_text(TEXT)
    return load_sweep(tmp_path / "sweep.yaml")


def test_runs_share_what_does_not_differ(sweep, tmp_path):
    full, training, kept, place = plan_runs(sweep, tmp_path)
    assert full.training != training.training
    assert (full.training, full.evaluation) == (place.training, place.evaluation)
    assert full.training == kept.training
    assert full.evaluation != kept.evaluation
    (seed, *_) = plan_runs(sweep, tmp_path, ["SEED", 5], seeds=[1])[len(sweep.variants) :]
    assert (seed.cfg.SEED, seed.training == full.training) == (1, False)


def test_what_is_at_its_default_need_not_be_said(sweep, tmp_path):
    (full, *_) = plan_runs(sweep, tmp_path)
    (same, *_) = plan_runs(sweep, tmp_path, ["MODEL.CRM.NUM_RANKS", 3])
    assert same.training == full.training
    (other, *_) = plan_runs(sweep, tmp_path, ["MODEL.CRM.NUM_RANKS", 4])
    assert other.training != full.training


def test_given_weights_are_told_by_their_content(sweep, tmp_path):
    for name, content in (("a", b"1"), ("b", b"1"), ("c", b"2")):
        (tmp_path / name).write_bytes(content)
    a, b, c = ([run.evaluation for run in plan_runs(sweep, tmp_path, weights=tmp_path / name)] for name in "abc")
    assert a == b
    assert not {*a} & {*c}
    full, training, kept, _ = a
    assert len({full, training, kept}) == 3, "the network's settings count, since the weights do not tell them"
    with pytest.raises(FileNotFoundError, match="none"):
        plan_runs(sweep, tmp_path, weights=tmp_path / "none")


def test_tables_share_the_full_network(tmp_path):
    trainings = set()
    for name in (
        "table_v",
        "table_vii",
        "table_viii",
        "table_ix",
        "table_x",
        "table_xiii",
        "table_xiv",
        "fig_6",
        "fig_7",
    ):
        sweep = load_sweep(REPOSITORY / f"configs/ablations/{name}.yaml", mini=True)
        trainings.add(plan_runs(sweep, tmp_path)[0].training)
    assert len(trainings) == 1
