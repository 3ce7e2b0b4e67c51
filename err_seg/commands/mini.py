"""The miniature world: ERR-Seg end to end in minutes on a CPU, with nothing to download.

    err-seg mini all                           train one seed on the seen classes, evaluate, show
    err-seg mini all --seeds 0 1 2             mean and spread of three
    err-seg mini all --from-scratch            pre-train CLIP as well
    err-seg mini all --config-file configs/mini/err_seg_vit.yaml    the same on a ViT
    err-seg mini evaluate                      the trained network in the package
    err-seg mini train SOLVER.MAX_ITER 100     any key of the configuration, before the options
    err-seg mini draw --sheet sheet.png        a sheet of its images, to look at

Images are drawn on first use, to mini_world in the data sets' folder (DATASETS.ROOT). Trained networks, results.json
and predictions.png go to OUTPUT. "evaluate" takes the networks that "train" wrote there, else the one in the package.
"""

import argparse
import importlib
import logging
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from err_seg.commands.options import command_parser, positive, reporting_errors

DRAWING = """Draw the miniature world: write a split, or look at it.

    err-seg mini draw --split val --count 240 --output datasets
    err-seg mini draw --split val --sheet sheet.png

Images and label maps go to a folder in OUTPUT/mini_world, named by split, number and the other settings. If OUTPUT is
the data sets' folder, the data sets mini_world_train, mini_world_val and mini_world_test are found there. --sheet
writes two files: FILE.png with scenes beside their labels, and FILE_classes.png with crops of all sixty classes.
"""
STEPS = ("pretrain", "train", "evaluate", "all", "draw")
SPLITS, LEVELS, CLASS_SETS = ("train", "val", "test"), ("easy", "hard"), ("seen", "all")


def add_stage_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the steps that share a command line."""
    add = parser.add_argument
    add("step", choices=STEPS, help="draw has options of its own: err-seg mini draw --help")
    add("--config-file", type=Path, metavar="FILE", help="default: configs/mini/err_seg.yaml")
    add("--output", type=Path, metavar="DIR", help="default: the configuration's OUTPUT_DIR")
    add("--seeds", type=int, nargs="+", default=[0], metavar="S", help="of the training (0)")
    add("--from-scratch", action="store_true", help="use a CLIP that was pre-trained here, not packaged")
    add("--scenes", type=positive, nargs=3, metavar=("TRAIN", "VAL", "TEST"), help="how many of each split")
    add("--package", action="store_true", help="write the weights made here into the package")
    add("opts", nargs="*", metavar="KEY VALUE", help="overrides of the configuration")


def add_drawing_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``err-seg mini draw``."""
    add = parser.add_argument
    add("--output", type=Path, metavar="DIR", help="write the scenes to DIR/mini_world")
    add("--sheet", type=Path, metavar="FILE.png", help="draw contact sheets")
    add("--split", choices=SPLITS, default="train", help="(train)")
    add("--count", type=positive, default=1000, metavar="N", help="number of scenes (1000)")
    add("--size", type=positive, nargs=2, default=(128, 192), metavar=("MIN", "MAX"), help="sides in pixels (128 192)")
    add("--classes", choices=CLASS_SETS, default="", help="seen for train, all for val and test")
    add("--level", choices=LEVELS, default="easy", help="(easy)")
    add("--seed", type=int, default=0, metavar="S", help="(0)")
    add("--workers", type=positive, default=2, metavar="N", help="threads that write (2)")


@reporting_errors(1)
def main(argv: Sequence[str] | None = None) -> None:
    """Run the steps asked for."""
    argv = list(sys.argv[1:] if argv is None else argv)
    draws = argv[:1] == ["draw"]
    parser = command_parser("mini draw", DRAWING) if draws else command_parser("mini", __doc__)
    (add_drawing_options if draws else add_stage_options)(parser)
    options = parser.parse_intermixed_args(argv[1:] if draws else argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    step = importlib.import_module(f"err_seg.lab.mini.{'drawing' if draws else 'stages'}")
    step.run(options, shlex.join(["err-seg", "mini", *argv]))
