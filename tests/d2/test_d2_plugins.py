"""Parts of one's own through detectron2: its configuration tree, its model and its trainer."""

import pytest
import torch

import err_seg
from tests.helpers.plugins import NAMES
from tests.helpers.toy import VOCABULARY
from tests.helpers.training import lines, run

pytest.importorskip("err_seg.d2", exc_type=ImportError)  # the reason names what is lacking
pytestmark = pytest.mark.d2

from detectron2.config import get_cfg
from detectron2.modeling import build_model

from err_seg.d2 import add_err_seg_config, from_detectron2, to_detectron2
from err_seg.d2 import trainer as d2_trainer
from err_seg.d2.parts import by_use


@pytest.mark.parametrize("name", NAMES)
def test_settings_of_own_parts_survive_both_ways(name, example, run_cfg):
    cfg = run_cfg(*example(name))
    theirs = to_detectron2(cfg)
    assert list(theirs.MODEL.IMPORTS) == [name]
    again = from_detectron2(theirs.clone())
    assert again.dump() == cfg.dump()


def test_detectron2s_own_tree_takes_sections_of_own_parts(example, tmp_path):
    example("dice_loss")
    cfg = get_cfg()
    add_err_seg_config(cfg)
    (tmp_path / "own.yaml").write_text("MODEL: {IMPORTS: [dice_loss]}\nEXTRA: {DICE_LOSS: {SMOOTHING: 3}}\n")
    cfg.merge_from_file(str(tmp_path / "own.yaml"))
    assert from_detectron2(cfg).EXTRA == {"DICE_LOSS": {"SMOOTHING": 3.0}}
    cfg.merge_from_list(["EXTRA.DICE_LOSS.SMOOTHING", "4"])
    assert from_detectron2(cfg).EXTRA == {"DICE_LOSS": {"SMOOTHING": 4.0}}
    assert get_cfg().get("EXTRA") is None


@pytest.mark.parametrize("name", ["parallel_aggregation", "resnet_backbone", "second_encoder", "shuffle_decoder"])
def test_model_with_own_parts_is_the_plain_one(name, example, run_cfg, images):
    cfg = run_cfg(*example(name))
    model, plain = build_model(to_detectron2(cfg)).eval(), err_seg.build_model(cfg)
    first, second = model.network.state_dict(), plain.state_dict()
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)
    pixels = torch.from_numpy(images[0]).permute(2, 0, 1)
    with torch.no_grad():
        (found,) = model([{"image": pixels, "vocabulary": VOCABULARY, "num_kept": 3}])
        features = model.backbone(torch.zeros(1, 3, 64, 64))
    expected = plain.predict(images[0], VOCABULARY, num_kept=3)
    assert torch.equal(found["segmentation"].maps, expected.maps)
    if name == "second_encoder":
        deep = by_use(features)[1]
        assert [tensor.shape[1] for tensor in deep] == [m.channels for m in plain.encoder.maps.deep]
        assert len(deep) == 3


def test_terms_of_the_loss_are_logged_as_by_the_plain_engine(example, run_cfg, tmp_path):
    own = (*example("dice_loss"), "SOLVER.MAX_ITER", 2)
    run(run_cfg(*own))
    d2_trainer.train(run_cfg(*own, "OUTPUT_DIR", str(tmp_path / "d2")))
    one, other = ([line for line in lines(tmp_path / name) if "lr" in line] for name in ("out", "d2"))
    for first, second in zip(one, other, strict=True):
        for key in ("total_loss", "loss_sem_seg", "loss_dice"):
            assert second[key] == pytest.approx(first[key], rel=1e-4)
