"""The stages of ``err-seg mini``: pre-train, train, evaluate."""

import argparse
import platform
import time
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from err_seg.config import Config, get_cfg
from err_seg.engine import train
from err_seg.lab.mini.evaluation import measure, open_test_scenes, set_scenes
from err_seg.lab.mini.pretraining import SETTINGS, pretrain, zero_shot_accuracy
from err_seg.lab.mini.summary import draw_grid, print_table, save_report
from err_seg.mini.clip import CLIPS, ERR_SEG_WEIGHTS, NAME
from err_seg.mini.crops import MiniCrops
from err_seg.mini.files import SCENES
from err_seg.models.build import build_model
from err_seg.models.checkpoint import save_weights
from err_seg.prediction.model import ERRSeg
from err_seg.utils.messages import listed
from err_seg.utils.processes import one_writer

GRID_SCENES = 6


def run(arguments: argparse.Namespace, command: str) -> None:
    """Pre-train, train and evaluate, as far as asked for."""
    cfg = get_cfg(arguments.config_file or "mini/err_seg", arguments.opts)
    output = arguments.output or Path(cfg.OUTPUT_DIR)
    cfg.OUTPUT_DIR, clip_file = str(output), output / "clip.safetensors"
    with one_writer(output):
        if arguments.package and arguments.step != "pretrain" and cfg.MODEL.CLIP.NAME != NAME:
            raise ValueError(f"--package: of {cfg.MODEL.CLIP.NAME} the package brings CLIP alone, which pretrain makes")
        if arguments.step == "pretrain" or (arguments.step == "all" and arguments.from_scratch):
            pretrain_clip(cfg, None if arguments.package else clip_file, command)
        if arguments.step == "pretrain":
            return
        if arguments.from_scratch and not arguments.package:
            cfg.MODEL.CLIP.PRETRAINED = str(clip_file)
        set_scenes(cfg, dict(zip(SCENES, arguments.scenes or SCENES.values(), strict=True)))
        if arguments.step != "train":
            open_test_scenes(cfg)  # a mistake is reported before the training
        network_of = load_network if arguments.step == "evaluate" else train_network
        models = {seed: network_of(for_seed(cfg, seed)) for seed in arguments.seeds}
        if arguments.package:
            facts = {"command": command, "config": cfg.dump()}
            save_half(models[arguments.seeds[0]].state_dict(), ERR_SEG_WEIGHTS, facts)
        if arguments.step != "train":
            show(cfg, models, command)


def pretrain_clip(cfg: Config, file: Path | None, command: str) -> None:
    """Pre-train the configuration's CLIP and write it to a file, or to its place in the package."""
    name = cfg.MODEL.CLIP.NAME
    if name not in CLIPS:
        raise ValueError(f"MODEL.CLIP.NAME: {listed(CLIPS)} can be pre-trained here, not {name!r}")
    settings, start = SETTINGS[name], time.perf_counter()
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD))
    clip = pretrain(name, settings, mean, std)
    crops = MiniCrops("test", 600, settings.seed, size=clip.visual.image_size[0], names=settings.names)
    accuracy = zero_shot_accuracy(clip, crops, mean, std, name)
    facts: dict[str, object] = {"command": command, "pretraining": repr(settings), "accuracy": accuracy}
    facts |= {"names": settings.names, "captions": settings.captions}
    save_half(clip.state_dict(), file or CLIPS[name].weights, facts)
    shares = ", ".join(f"{kind} {share:.2f}" for kind, share in accuracy.items())
    print(f"Pre-trained CLIP in {_minutes(start)}; zero-shot accuracy among {settings.names} names: {shares}")


def save_half(state: Mapping[str, Tensor], file: Path, facts: Mapping[str, object]) -> None:
    """Write weights as safetensors in fp16 (loading casts), with how they were made as metadata."""
    versions = {"torch": torch.__version__, "python": platform.python_version()}
    half = {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in state.items()}
    save_weights(half, file, {**facts, **versions})


def for_seed(cfg: Config, seed: int) -> Config:
    """Copy a configuration for one seed, with a folder of its own."""
    settings = cfg.clone()
    settings.SEED, settings.OUTPUT_DIR = seed, str(Path(cfg.OUTPUT_DIR) / f"seed{seed}")
    return settings


def train_network(cfg: Config) -> ERRSeg:
    """Train the network of a configuration."""
    start, model = time.perf_counter(), build_model(cfg)
    train(cfg, model)
    print(f"Trained seed {cfg.SEED}, {cfg.SOLVER.MAX_ITER} iterations, in {_minutes(start)}")
    return model


def load_network(cfg: Config) -> ERRSeg:
    """Load the network that was trained in ``OUTPUT_DIR``, else the package's own."""
    trained = Path(cfg.OUTPUT_DIR) / "model_final.safetensors"
    if trained.is_file():
        print(f"Evaluating {trained}")
    elif cfg.MODEL.CLIP.NAME == NAME:
        print(f"No {trained}: evaluating the network that the package brings")
        trained = ERR_SEG_WEIGHTS
    else:
        raise FileNotFoundError(f"no {trained}: train first (the package brings a trained network on {NAME} alone)")
    cfg.MODEL.WEIGHTS = str(trained)
    return build_model(cfg)


def show(cfg: Config, models: dict[int, ERRSeg], command: str) -> None:
    """Evaluate each seed's network, and leave the table, its numbers and images."""
    output = Path(cfg.OUTPUT_DIR)
    runs = [measure(for_seed(cfg, seed), model) for seed, model in models.items()]
    print_table(runs, list(models))
    settings = {"command": command, "threads": torch.get_num_threads(), "config": cfg.dump()}
    save_report(runs, list(models), settings, output / "results.json")
    draw_grid(cfg, next(iter(models.values())), GRID_SCENES, output / "predictions.png")
    print(f"Figures: {output / 'results.json'}\nImages: {output / 'predictions.png'}")


def _minutes(start: float) -> str:
    minutes, seconds = divmod(round(time.perf_counter() - start), 60)
    return f"{minutes} min {seconds:02d} s"
