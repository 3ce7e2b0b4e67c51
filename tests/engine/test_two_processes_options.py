import pytest
import torch

import err_seg
from err_seg.data import register, spec_from_dict
from err_seg.engine import train
from err_seg.engine import trainer as run_module
from err_seg.engine.launch import join_processes, launch
from err_seg.engine.parallel import build_accelerator
from err_seg.models.checkpoint import open_checkpoint
from tests.helpers.toy import liven
from tests.helpers.training import lines

CLIP = {"value": 1e-4, "norm": 1e-3, "full_model": 1e-3}
AVERAGE = ("SOLVER.EMA.ENABLED", True, "SOLVER.EMA.DECAY", 0.5)
COMMON = (*AVERAGE, "MODEL.ESCF.DROP_PATH", 0.0, "SOLVER.MAX_ITER", 3, "TEST.EVAL_PERIOD", 2)


def with_scaler(cfg, device):
    """Scale losses so that at first they overflow."""
    accelerator = build_accelerator(cfg, device)
    accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127, growth_interval=100, backoff_factor=2.0**-60)
    return accelerator


def larger(*arguments):
    """Return a loss that overflows at that scale."""
    return {name: 8 * term for name, term in LOSS(*arguments).items()}


LOSS = run_module.training_loss


def train_all(cfgs):
    """Train as each configuration says, in one of several processes, or alone."""
    run_module.build_accelerator, run_module.training_loss = with_scaler, larger
    for cfg in cfgs:
        torch.set_num_threads(1)
        join_processes(cfg)
        for entry in cfg.DATASETS.CUSTOM:
            register(spec_from_dict(entry))
        model = err_seg.build_model(cfg)
        liven(model)
        train(cfg, model)
    return 0


def test_two_processes_clip_average_scale_and_evaluate_as_one_does(run_cfg, tmp_path, monkeypatch):
    for name in ("build_accelerator", "training_loss"):
        monkeypatch.setattr(run_module, name, getattr(run_module, name))  # to be put back
    ddp, fsdp = ("SOLVER.ACCUMULATION_STEPS", 2), ("SOLVER.PARALLEL", "fsdp")

    def clipped(kind, name, *way):
        settings = {"ENABLED": True, "CLIP_TYPE": kind, "CLIP_VALUE": CLIP[kind]}
        clip = [entry for key, value in settings.items() for entry in (f"SOLVER.CLIP_GRADIENTS.{key}", value)]
        return run_cfg(*COMMON, *clip, *way, "OUTPUT_DIR", str(tmp_path / name / kind))

    assert train_all([clipped(kind, "alone") for kind in CLIP]) == 0
    two = [clipped("full_model", "ddp", *ddp), *(clipped(kind, "fsdp", *fsdp) for kind in CLIP)]
    assert launch(train_all, two, processes=2) == 0
    for kind in CLIP:
        expected = lines(tmp_path / "alone" / kind)
        assert [line["skipped_steps"] for line in expected if "lr" in line] == [1, 1, 1]
        for name in ("ddp", "fsdp") if kind == "full_model" else ("fsdp",):
            folder = tmp_path / name / kind
            found = lines(folder)
            assert [line.keys() for line in found] == [line.keys() for line in expected]
            for first, second in zip(found, expected, strict=True):
                # of a small data set's figures, a pixel on the edge is much
                assert first == pytest.approx(second, rel=1e-4 if "lr" in first else 0.03), (name, kind)
            for file in ("model_final.safetensors", "model_best.safetensors"):
                one, other = (open_checkpoint(place / file).weights for place in (tmp_path / "alone" / kind, folder))
                assert one.keys() == other.keys()
                for key, weight in one.items():
                    assert (weight.float() - other[key].float()).abs().median() <= 1e-5, (name, kind, key)
    # what two processes saved in parts, one goes on with
    for name in ("alone", "fsdp"):
        cfg = run_cfg(*COMMON, "SOLVER.MAX_ITER", 4, "OUTPUT_DIR", str(tmp_path / name / "norm"))
        train(cfg, err_seg.build_model(cfg), resume=True)
    ends = [lines(tmp_path / name / "norm")[-2]["total_loss"] for name in ("alone", "fsdp")]
    assert ends[0] == pytest.approx(ends[1], rel=1e-4)
