"""The steps of ``err-seg mini``: pre-train, train, evaluate, draw."""

import argparse
import time
from pathlib import Path

import torch
from PIL import Image

from err_seg.config import Config, get_cfg, shipped_configs
from err_seg.lab.mini import world
from err_seg.lab.mini.metrics import open_test_scenes
from err_seg.lab.mini.pretraining import SETTINGS
from err_seg.lab.mini.sheets import benchmark, class_sheet, scene_sheet
from err_seg.lab.mini.summary import print_table, save_report
from err_seg.mini.clip import CLIPS, ERR_SEG_WEIGHTS, NAME
from err_seg.mini.crops import MiniCrops
from err_seg.mini.files import SCENES, mini_world_spec
from err_seg.mini.scenes import MiniScenes
from err_seg.models.build import build_model
from err_seg.prediction.model import ERRSeg
from err_seg.utils.images import save_image
from err_seg.utils.messages import listed

GRID_SCENES = range(6)


def run(arguments: argparse.Namespace, command: str) -> None:
    """Pre-train, train and evaluate, as far as asked for."""
    cfg = get_cfg(arguments.config_file or shipped_configs() / "mini/err_seg.yaml", arguments.opts)
    output = arguments.output or Path(cfg.OUTPUT_DIR)
    cfg.OUTPUT_DIR = str(output)
    clip_file = output / "clip.safetensors"
    if arguments.package and arguments.step != "pretrain" and cfg.MODEL.CLIP.NAME != NAME:
        raise ValueError(f"--package: of {cfg.MODEL.CLIP.NAME} the package brings CLIP alone, which pretrain makes")
    if arguments.step == "pretrain" or (arguments.step == "all" and arguments.from_scratch):
        pretrain(cfg, None if arguments.package else clip_file, command)
    if arguments.step == "pretrain":
        return
    if arguments.from_scratch and not arguments.package:
        cfg.MODEL.CLIP.PRETRAINED = str(clip_file)
    world.set_scenes(cfg, dict(zip(SCENES, arguments.scenes or SCENES.values(), strict=True)))
    if arguments.step != "train":
        open_test_scenes(cfg)  # a mistake is reported before the training
    models = {seed: obtain(for_seed(cfg, seed), train=arguments.step != "evaluate") for seed in arguments.seeds}
    if arguments.package:
        facts = {"command": command, "config": cfg.dump()}
        world.save_half(models[arguments.seeds[0]].state_dict(), ERR_SEG_WEIGHTS, facts)
    if arguments.step != "train":
        show(cfg, models, command)


def pretrain(cfg: Config, file: Path | None, command: str) -> None:
    """Pre-train the configuration's CLIP and write it to a file, or to its place in the package."""
    name = cfg.MODEL.CLIP.NAME
    if name not in CLIPS:
        raise ValueError(f"MODEL.CLIP.NAME: {listed(CLIPS)} can be pre-trained here, not {name!r}")
    start = time.perf_counter()
    accuracy = world.pretrain_clip(cfg, SETTINGS[name], file or CLIPS[name].weights, command)
    shares = ", ".join(f"{kind} {share:.2f}" for kind, share in accuracy.items())
    print(f"Pre-trained CLIP in {_minutes(start)}; zero-shot accuracy among {SETTINGS[name].names} names: {shares}")


def for_seed(cfg: Config, seed: int) -> Config:
    """Copy a configuration for one seed, with a folder of its own."""
    settings = cfg.clone()
    settings.SEED, settings.OUTPUT_DIR = seed, str(Path(cfg.OUTPUT_DIR) / f"seed{seed}")
    return settings


def obtain(cfg: Config, *, train: bool) -> ERRSeg:
    """Train a network, or load the one that was trained in ``OUTPUT_DIR``, else the package's own."""
    if train:
        start = time.perf_counter()
        model = world.train_model(cfg)
        print(f"Trained seed {cfg.SEED}, {cfg.SOLVER.MAX_ITER} iterations, in {_minutes(start)}")
        return model
    trained = Path(cfg.OUTPUT_DIR) / "model_final.safetensors"
    if not trained.is_file() and cfg.MODEL.CLIP.NAME != NAME:
        raise FileNotFoundError(f"no {trained}: train first (the package brings a trained network on {NAME} alone)")
    if not trained.is_file():
        print(f"No {trained}: evaluating the network that the package brings")
        trained = ERR_SEG_WEIGHTS
    else:
        print(f"Evaluating {trained}")
    cfg.MODEL.WEIGHTS = str(trained)
    return build_model(cfg)


def show(cfg: Config, models: dict[int, ERRSeg], command: str) -> None:
    """Evaluate each seed's network, and leave table, figures and images."""
    output = Path(cfg.OUTPUT_DIR)
    runs = [world.measure(for_seed(cfg, seed), model) for seed, model in models.items()]
    print_table(runs, list(models))
    settings = {"command": command, "threads": torch.get_num_threads(), "config": cfg.dump()}
    save_report(runs, list(models), settings, output / "results.json")
    world.draw_grid(cfg, next(iter(models.values())), GRID_SCENES, output / "predictions.png")
    print(f"Figures: {output / 'results.json'}\nImages: {output / 'predictions.png'}")


def _minutes(start: float) -> str:
    minutes, seconds = divmod(round(time.perf_counter() - start), 60)
    return f"{minutes} min {seconds:02d} s"


def draw(arguments: argparse.Namespace) -> None:
    """Write scenes, sheets of them, and how fast they are drawn, as far as asked for.

    Raises:
        ValueError, OSError: scenes that cannot be drawn, or a file that cannot be written.
    """
    split, level = arguments.split, arguments.level
    scenes = MiniScenes(split, tuple(arguments.size), arguments.classes, level, arguments.count, arguments.seed)
    if arguments.output:
        spec = mini_world_spec(scenes)
        spec.make_available(arguments.output, arguments.workers)
        folder = spec.image_folder(arguments.output).parent
        print(f"{len(scenes)} scenes of {len(scenes.vocabulary)} classes are in {folder}")
    if arguments.sheet:
        _save(scene_sheet(scenes), arguments.sheet)
        _save(class_sheet(level, arguments.seed), arguments.sheet.with_stem(f"{arguments.sheet.stem}_classes"))
    if arguments.benchmark:
        print(benchmark(scenes, MiniCrops(split, seed=arguments.seed, level=level)))


def _save(image: Image.Image, path: Path) -> None:
    save_image(image, path)
    print(f"wrote {path}")
