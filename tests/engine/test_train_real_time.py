"""The network for real time trains on real images, where the samples are at hand."""

import shutil

import pytest
import torch

import err_seg
from err_seg.commands.prepare import main as prepare
from err_seg.engine import train
from tests.helpers.toy import SHARED

RAW = SHARED / "samples" / "raw" / "VOCdevkit"


@pytest.mark.skipif(not RAW.is_dir(), reason="no real samples")
def test_two_iterations_on_real_images(tmp_path):
    shutil.copytree(RAW, tmp_path / "VOCdevkit", copy_function=shutil.copyfile)
    for folder in (tmp_path / "VOCdevkit").rglob("*/"):
        folder.chmod(0o755)
    assert prepare(["voc20", "--root", str(tmp_path)]) == 0
    own = {
        "MODEL.DEVICE": "cpu",
        "MODEL.CLIP.PRETRAINED": "",
        "INPUT.CROP_SIZE": 96,
        "INPUT.MIN_SIZE_TRAIN": [96],
        "DATASETS.ROOT": str(tmp_path),
        "DATASETS.TRAIN": ["pascal_voc_20_val"],
        "DATALOADER.NUM_WORKERS": 0,
        "SOLVER.IMS_PER_BATCH": 2,
        "SOLVER.MAX_ITER": 2,
        "SOLVER.WARMUP_ITERS": 0,
        "LOG.TENSORBOARD": False,
        "OUTPUT_DIR": str(tmp_path / "out"),
    }
    cfg = err_seg.get_cfg("err_seg_mobileclip2_s0", [item for pair in own.items() for item in pair])
    model = err_seg.build_model(cfg)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    train(cfg, model)
    after = model.state_dict()
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    changed = {name for name, tensor in after.items() if not torch.equal(tensor, before[name])}
    assert changed <= trained
    assert len(changed) > 0.9 * len(trained)
    assert all(tensor.isfinite().all() for tensor in after.values())
