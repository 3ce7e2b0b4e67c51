"""The commands: ``err-seg NAME ...``. Each has a file with a function ``main``, which takes the arguments.

Reading the arguments imports nothing heavy, so that help, version and mistakes are answered at once. A command imports
what it needs when it starts to work.
"""

import argparse
import importlib
import sys
from collections.abc import Sequence

from err_seg.version import __version__

COMMANDS = {
    "predict": "label every pixel of your own images and videos with your own words",
    "train": "train a network, then evaluate it",
    "evaluate": "evaluate weights on any number of benchmarks",
    "compare": "compare evaluations: settings, metrics with intervals, and classes",
    "diagnose": "find out why pixels are wrong, on a page",
    "calibrate": "make a model say how probable it is that a label is right",
    "prepare": "convert the data sets' archives, and annotations of your own images",
    "sweep": "measure tables of variants and seeds",
    "results": "write a page of what sweeps have measured on the miniature world",
    "export": "write the network as ONNX or as a program of torch.export",
    "check": "check a model: its weights, its towers, and the numbers that every part computes",
    "publish": "upload a trained network to the Hugging Face hub, with a card of its figures",
    "web": "serve a web page that labels uploaded images",
    "analyze": "count a network's cost and the classes of images; measure CRM's recall and how similar words are",
    "figures": "draw the paper's figures for your own images and words",
    "benchmark": "measure time and memory of prediction, training and reading",
    "mini": "the whole system on a small drawn world, in minutes on a CPU",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command, the first of the arguments; returns its exit status."""
    listing = "\n".join(f"  {name:11} {what}" for name, what in COMMANDS.items())
    parser = argparse.ArgumentParser(
        prog="err-seg",
        description="Segment any image with any list of class names.",
        epilog=f"commands:\n{listing}\n\nerr-seg COMMAND --help explains the options.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"err_seg {__version__}")
    parser.add_argument("command", choices=COMMANDS, metavar="COMMAND", help="one of those below")
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    chosen = parser.parse_args(arguments[:1]).command
    return importlib.import_module(f"err_seg.commands.{chosen}").main(arguments[1:])
