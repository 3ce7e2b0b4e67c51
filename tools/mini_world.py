#!/usr/bin/env python
"""The miniature world: ERR-Seg end to end in minutes on a CPU, with nothing to download.

    python tools/mini_world.py all                           train one seed on the seen classes, evaluate, show
    python tools/mini_world.py all --seeds 0 1 2             mean and spread of three
    python tools/mini_world.py all --from-scratch            pre-train CLIP as well
    python tools/mini_world.py all --config-file configs/mini/err_seg_vit.yaml    the same on a ViT
    python tools/mini_world.py evaluate                      the trained network that the package brings
    python tools/mini_world.py train SOLVER.MAX_ITER 100     any key of the configuration, before the options

Pictures are drawn on first use, to mini_world in the data sets' folder (DATASETS.ROOT); trained networks, results.json
and predictions.png go to OUTPUT. "evaluate" takes the networks that "train" left there, else the package's own.
"""

import argparse
import logging
import shlex
import sys
import time
from pathlib import Path

import torch
from fvcore.common.config import CfgNode

import err_seg
from err_seg.data.mini_world import SCENES
from err_seg.engine import RunError, TrainingInterrupted
from err_seg.mini import world
from err_seg.mini.clip import CLIPS, NAME
from err_seg.mini.figures import open_test_scenes
from err_seg.mini.pretraining import SETTINGS
from err_seg.mini.report import print_table, save_report
from err_seg.modeling.err_seg import ERRSeg

ROOT = Path(__file__).resolve().parents[1]
GRID_SCENES = range(6)


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("step", choices=("pretrain", "train", "evaluate", "all"))
    parser.add_argument("--config-file", default=ROOT / "configs/mini/err_seg.yaml", type=Path, metavar="FILE")
    parser.add_argument("--output", type=Path, metavar="DIR", help="default: the configuration's OUTPUT_DIR")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="of the training (default: 0)")
    parser.add_argument(
        "--from-scratch", action="store_true", help="use a CLIP that was pre-trained here, not packaged"
    )
    parser.add_argument("--scenes", type=int, nargs=3, default=list(SCENES.values()), metavar=("TRAIN", "VAL", "TEST"))
    parser.add_argument("--package", action="store_true", help="write the weights made here into the package")
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="overrides of the configuration")
    return parser.parse_intermixed_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Run the steps asked for."""
    arguments = parse_arguments(argv)
    command = shlex.join(["python", "tools/mini_world.py", *(sys.argv[1:] if argv is None else argv)])
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        run(arguments, command)
    except TrainingInterrupted as interruption:
        print(interruption, file=sys.stderr)
        return interruption.status
    except (ValueError, OSError, RunError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def run(arguments: argparse.Namespace, command: str) -> None:
    """Pre-train, train and evaluate, as far as asked for."""
    cfg = err_seg.get_cfg(arguments.config_file, arguments.opts)
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
    world.set_scenes(cfg, dict(zip(SCENES, arguments.scenes, strict=True)))
    if arguments.step != "train":
        open_test_scenes(cfg)  # a mistake is told before the training
    models = {seed: obtain(for_seed(cfg, seed), train=arguments.step != "evaluate") for seed in arguments.seeds}
    if arguments.package:
        facts = {"command": command, "config": cfg.dump()}
        world.save_model(models[arguments.seeds[0]], world.ERR_SEG_WEIGHTS, facts)
    if arguments.step != "train":
        show(cfg, models, command)


def pretrain(cfg: CfgNode, file: Path | None, command: str) -> None:
    """Pre-train the configuration's CLIP and write it to a file, or to its place in the package."""
    name = cfg.MODEL.CLIP.NAME
    if name not in CLIPS:
        raise ValueError(f"MODEL.CLIP.NAME: {' and '.join(CLIPS)} can be pre-trained here, not {name!r}")
    start = time.perf_counter()
    accuracy = world.pretrain_clip(cfg, SETTINGS[name], file or CLIPS[name].weights, command)
    shares = ", ".join(f"{kind} {share:.2f}" for kind, share in accuracy.items())
    print(f"Pre-trained CLIP in {_minutes(start)}; zero-shot accuracy among 60 names: {shares}")


def for_seed(cfg: CfgNode, seed: int) -> CfgNode:
    """Copy a configuration for one seed, with a folder of its own."""
    settings = cfg.clone()
    settings.SEED, settings.OUTPUT_DIR = seed, str(Path(cfg.OUTPUT_DIR) / f"seed{seed}")
    return settings


def obtain(cfg: CfgNode, *, train: bool) -> ERRSeg:
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
        return world.load_model(cfg)
    print(f"Evaluating {trained}")
    cfg.MODEL.WEIGHTS = str(trained)
    return err_seg.build_model(cfg)


def show(cfg: CfgNode, models: dict[int, ERRSeg], command: str) -> None:
    """Evaluate each seed's network, and leave table, figures and pictures."""
    output = Path(cfg.OUTPUT_DIR)
    runs = [world.measure(for_seed(cfg, seed), model) for seed, model in models.items()]
    print_table(runs, list(models))
    settings = {"command": command, "threads": torch.get_num_threads(), "config": cfg.dump()}
    save_report(runs, list(models), settings, output / "results.json")
    world.draw_grid(cfg, next(iter(models.values())), GRID_SCENES, output / "predictions.png")
    print(f"Figures: {output / 'results.json'}\nPictures: {output / 'predictions.png'}")


def _minutes(start: float) -> str:
    minutes, seconds = divmod(round(time.perf_counter() - start), 60)
    return f"{minutes} min {seconds:02d} s"


if __name__ == "__main__":
    sys.exit(main())
