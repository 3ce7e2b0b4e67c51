import itertools
import random
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

import err_seg
from err_seg.config import ConfigError
from err_seg.data import register, spec_from_dict
from err_seg.engine import TrainingError, train
from err_seg.engine.parallel import activation_checkpointing, images_at_a_time
from err_seg.engine.trainer import PlainTrainer
from tests.helpers.toy import liven
from tests.helpers.training import assert_same_weights, declaration, metrics, run


def trained(run_cfg, *overrides):
    """Train three iterations with signal in every path; return losses and weights."""
    cfg = run_cfg("SOLVER.MAX_ITER", 3, "MODEL.ESCF.DROP_PATH", 0.0, *overrides)
    model = err_seg.build_model(cfg)
    liven(model)
    train(cfg, model)
    return metrics(cfg_folder(cfg), "total_loss"), {name: p.detach().clone() for name, p in model.named_parameters()}


def cfg_folder(cfg):
    return Path(cfg.OUTPUT_DIR)


def assert_close(first, second, rel=1e-4):
    assert first[0] == pytest.approx(second[0], rel=rel)
    for name, weight in first[1].items():
        # AdamW turns the rounding of a gradient near zero into a step of up to the learning rate
        assert (weight - second[1][name]).abs().median() <= 1e-6, name


def test_accumulation_changes_memory_but_not_the_step(run_cfg):
    whole = trained(run_cfg)
    assert_close(trained(run_cfg, "SOLVER.ACCUMULATION_STEPS", 2), whole)
    assert_close(trained(run_cfg, "SOLVER.ACCUMULATION_STEPS", 4), whole)


def test_random_numbers_follow_from_seed_iteration_and_rank(toy_cfg):
    """They are drawn anew in every iteration and process, and are the same whenever the iteration is run."""

    class NoMoreBatches(Exception):
        pass

    def batches():
        raise NoMoreBatches
        yield

    def drawn(seed, iteration, rank):
        rank = SimpleNamespace(process_index=rank)
        run = SimpleNamespace(cfg=toy_cfg("SEED", seed), iteration=iteration, accelerator=rank, _batches=batches())
        with pytest.raises(NoMoreBatches):
            PlainTrainer.step(run)
        return torch.rand(4).tolist(), np.random.rand(), random.random()  # noqa: NPY002 - the state that libraries use

    places = list(itertools.product((0, 7), (0, 1, 2), (0, 1, 2)))
    seen = [drawn(*place) for place in places]
    for kind in zip(*seen, strict=True):
        assert len({str(numbers) for numbers in kind}) == len(places)
    assert [drawn(*place) for place in places] == seen


def test_compiled_training_is_the_same(run_cfg):
    backend = "eager"  # traced as for any backend, without the minutes that a compiler takes
    assert_close(
        trained(run_cfg, "SOLVER.COMPILE", backend, "SOLVER.MAX_ITER", 2), trained(run_cfg, "SOLVER.MAX_ITER", 2)
    )


def test_bf16_trains_nearly_the_same_and_leaves_the_model_as_it_was(run_cfg):
    cfg = run_cfg("SOLVER.PRECISION", "bf16", "SOLVER.MAX_ITER", 1)
    model = run(cfg)
    run(run_cfg("SOLVER.MAX_ITER", 1, "OUTPUT_DIR", cfg.OUTPUT_DIR + "-fp32"))
    low, high = (
        metrics(cfg_folder(cfg), "total_loss")[0],
        metrics(cfg_folder(cfg).with_name("out-fp32"), "total_loss")[0],
    )
    assert low != high
    assert low == pytest.approx(high, rel=0.02)
    seen = {}
    model.head.cost_embedding.register_forward_hook(lambda module, inputs, output: seen.update(dtype=output.dtype))
    model.eval()(torch.randn(1, 3, 64, 64), model.embed_vocabulary(["a", "b"]))
    assert seen["dtype"] == torch.float32
    assert all(p.dtype == torch.float32 for p in model.parameters())


def test_fp16_on_the_cpu_is_refused(run_cfg):
    with pytest.raises(ConfigError, match=r'SOLVER\.PRECISION "fp16" needs a GPU'):
        run(run_cfg("SOLVER.PRECISION", "fp16"))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_fp16_on_a_gpu_scales_the_loss_and_resumes(run_cfg, tmp_path):
    run(run_cfg("SOLVER.PRECISION", "fp16", "MODEL.DEVICE", "cuda", "SOLVER.MAX_ITER", 2))
    run(run_cfg("SOLVER.PRECISION", "fp16", "MODEL.DEVICE", "cuda", "SOLVER.MAX_ITER", 4), resume=True)
    state = torch.load(tmp_path / "out/checkpoints/iter_0000004/training.pt", weights_only=True)
    assert state["scaler"]["scale"] > 1
    assert metrics(tmp_path / "out", "iteration") == [0, 1, 2, 3]


def gradients(model, labels):
    model.zero_grad()
    torch.manual_seed(0)
    text = model.vocabulary_encoder.tokenize(["cat", "grass", "sky", "tree"])
    prediction = model(torch.linspace(-1, 1, 3 * 32 * 32).view(1, 3, 32, 32), text, labels=labels)
    prediction.logits.square().mean().backward()
    return {name: p.grad for name, p in model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize(("stage4", "what"), [("both", "blocks"), ("E16", "elementwise"), ("E32", "blocks")])
def test_activation_checkpointing_gives_the_same_gradients(toy_model, toy_cfg, stage4, what):
    model = toy_model("MODEL.HSM.STAGE4_GRADIENT", stage4, "MODEL.ESCF.DROP_PATH", 0.5)
    cfg = toy_cfg("SOLVER.ACTIVATION_CHECKPOINTING", True, "SOLVER.RECOMPUTED", what)
    labels = torch.randint(0, 4, (1, 32, 32), generator=torch.Generator().manual_seed(0))
    runs = []
    for block in model.blocks():
        next(block.children()).register_forward_hook(lambda *_: runs.append(None))
    with FlopCounterMode(display=False) as plain_count:
        plain = gradients(model, labels)
    runs_once = len(runs)
    with activation_checkpointing(model, cfg), FlopCounterMode(display=False) as count:
        less = gradients(model, labels)
    assert len(runs) == 3 * runs_once, "a block was not run again in the backward pass"
    repeated = count.get_total_flops() / plain_count.get_total_flops()
    assert repeated == 1 if what == "elementwise" else repeated > 1.1
    for name, gradient in plain.items():
        assert gradient is not None, name
        torch.testing.assert_close(less[name], gradient, rtol=1e-5, atol=1e-7)
    assert not any("forward" in vars(block) for block in model.blocks())


@pytest.mark.parametrize(("image", "text"), list(itertools.product(["none", "weight", "full"], repeat=2)))
def test_every_trainable_parameter_gets_a_gradient(toy_model, image, text):
    # distributed training waits for the gradient of each
    model = toy_model("MODEL.CLIP.IMAGE_TUNING", image, "MODEL.CLIP.TEXT_TUNING", text)
    missing = [name for name, g in gradients(model, torch.zeros(1, 32, 32, dtype=torch.int64)).items() if g is None]
    assert missing == []


@pytest.mark.parametrize(("processes", "steps", "expected"), [(1, 1, 8), (2, 1, 4), (2, 2, 2), (8, 1, 1)])
def test_global_batch_is_shared_out(toy_cfg, processes, steps, expected):
    cfg = toy_cfg("SOLVER.IMS_PER_BATCH", 8, "SOLVER.ACCUMULATION_STEPS", steps)
    assert images_at_a_time(cfg, processes) == expected


def test_global_batch_that_cannot_be_shared_out_is_refused(run_cfg):
    cfg = run_cfg("SOLVER.ACCUMULATION_STEPS", 3)
    with pytest.raises(ConfigError, match=r"SOLVER\.IMS_PER_BATCH = 4 .* 1 processes × .* = 3; use 3 or 6 images"):
        run(cfg)
    with pytest.raises(ConfigError, match="use 8 images"):
        images_at_a_time(run_cfg(), 8)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_loss_that_is_no_number_stops_with_everything_to_know(run_cfg, tmp_path, monkeypatch, value):
    from err_seg.engine import trainer as module

    loss, seen = module.training_loss, []

    def breaking(network, model, batch, *rest):
        seen.append(batch.paths)
        terms = loss(network, model, batch, *rest)
        return {name: term * (value if len(seen) == 4 else 1.0) for name, term in terms.items()}

    monkeypatch.setattr(module, "training_loss", breaking)
    with pytest.raises(TrainingError) as stop:
        run(run_cfg())
    message = str(stop.value)
    assert f"the loss is {value} at iteration 3" in message
    assert all(path in message for path in seen[3])
    checkpoint = tmp_path / "out/checkpoints/iter_0000002"
    assert f"the last good checkpoint is {checkpoint}" in message
    assert [path.name for path in checkpoint.parent.iterdir()] == [checkpoint.name]
    assert metrics(tmp_path / "out", "iteration") == [0, 1, 2]
    monkeypatch.undo()
    run(run_cfg(), resume=True)
    assert metrics(tmp_path / "out", "iteration") == [0, 1, 2, 3, 4, 5]


def test_broken_weights_are_not_saved(run_cfg, tmp_path, monkeypatch):
    step = PlainTrainer.step

    def breaking(run, *arguments):
        result = step(run, *arguments)
        if run.iteration == 4:
            run.model.head.gud.head.weight.data[0] = float("nan")
        return result

    monkeypatch.setattr(PlainTrainer, "step", breaking)
    with pytest.raises(TrainingError, match=r"after 4 iterations .*gud\.head\.weight.*iter_0000002"):
        run(run_cfg())
    assert [path.name for path in (tmp_path / "out/checkpoints").iterdir()] == ["iter_0000002"]


def test_checkpoint_that_cannot_be_written_stops_with_the_last_good_one_named(run_cfg, monkeypatch):
    from err_seg.engine.checkpoints import Checkpoints

    save = Checkpoints.save

    def full(checkpoints, weights, state):
        if state.iteration == 4:
            raise OSError("No space left on device")
        return save(checkpoints, weights, state)

    monkeypatch.setattr(Checkpoints, "save", full)
    with pytest.raises(TrainingError, match=r"iteration 4: No space left .* last good checkpoint is .*iter_0000002"):
        run(run_cfg())


def test_labels_of_sixteen_bits_train_as_those_of_eight(run_cfg, toy_world, tmp_path):
    for name, ignore_label in (("narrow", 255), ("wide", 65535)):
        folder = tmp_path / name
        shutil.copytree(Path(toy_world[0]["image_dir"]).parent, folder)
        for file in (folder / "labels").iterdir():
            label = np.asarray(Image.open(file)).astype(np.uint16)
            label[label == 255] = ignore_label
            Image.fromarray(label).save(file)
        register(spec_from_dict(declaration(tmp_path, name, ignore_label=ignore_label)))
        own = ("DATASETS.TRAIN", [name], "DATALOADER.NUM_WORKERS", 1, "VIS_PERIOD", 3)
        run(run_cfg(*own, "OUTPUT_DIR", str(tmp_path / "out" / name)))
    first, second = (tmp_path / "out" / name for name in ("narrow", "wide"))
    assert_same_weights(first / "model_final.safetensors", second / "model_final.safetensors")
    assert (first / "vis/iter_0000003.png").read_bytes() == (second / "vis/iter_0000003.png").read_bytes()
