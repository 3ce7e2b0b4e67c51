"""Measure what prediction, evaluation, training, text embedding and reading cost.

    err-seg benchmark prediction --config-file err_seg_convnext_b --num-classes 20 150 847 --num-kept 32 8
    err-seg benchmark training --config-file err_seg_convnext_b --size 320 --num-classes 171 --batch-size 2
    err-seg benchmark vocabulary --config-file err_seg_convnext_b --num-classes 847
    err-seg benchmark data --preparation --pictures 400
    err-seg benchmark table output/speed/results.json --runs err_seg_convnext_b=output/base --output output/table

prediction: from images to label maps. evaluation: the same, and pixels counted. training: whole steps. vocabulary:
class names embedded. Options with several values are multiplied out. Cases of the same configuration, vocabulary, size
and batch form a group: they are timed in turns and compared with the group's first row. That is the reference: the same
network with the released code's arithmetic (concatenations written out, maps of all T classes, all 77 text positions).
Weights do not matter, so they are random unless MODEL.WEIGHTS or MODEL.CLIP.PRETRAINED is given. data: training images
read, or label maps prepared, a second a core, and what the time goes into. table: time, operations and mIoU side by
side, and as a plot (Table III and Fig. 1), of timings and evaluations that were made before.
"""

import argparse
import logging
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from err_seg.commands.options import command_parser, positive, reporting_errors
from err_seg.config import get_cfg
from err_seg.config.constants import BENCHMARKED, BY_NEED, COMPILE_MODES, PRECISIONS, RECOMPUTED


def num_kept(text: str) -> int | str | None:
    """Read K: a number, "need" or "all"."""
    return {BY_NEED: BY_NEED, "all": None}[text] if text in (BY_NEED, "all") else positive(text)


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = command_parser("benchmark", __doc__)
    kinds = parser.add_subparsers(required=True, metavar=" | ".join((*BENCHMARKED, "data", "table")))
    for kind in BENCHMARKED:
        network = kinds.add_parser(kind, allow_abbrev=False)
        absent = {"num_kept": None, "size": None, "batch_size": [1], "compile": None, "recompute": [], "image": None}
        network.set_defaults(run=network_costs, kind=kind, predictor=[], **absent)
        add = network.add_argument
        files = "a YAML file, or a shipped name such as err_seg_convnext_b; may be given several times"
        add("--config-file", required=True, action="append", metavar="FILE", help=files)
        add("--num-classes", type=positive, nargs="+", default=[150], metavar="T", help="vocabulary (150)")
        add("--precision", choices=PRECISIONS[1:], nargs="+", default=["fp32"], help="fp32, fp16, bf16 (fp32)")
        if kind != "vocabulary":
            kept = 'classes kept, "need" (MODEL.CRM.MIN_SCORE) or "all"; the reference takes the first (the published)'
            add("--num-kept", type=num_kept, nargs="+", metavar="K", help=kept)
            add("--size", type=positive, nargs="+", metavar="S", help="side of the input (the configuration's)")
            add("--batch-size", type=positive, nargs="+", metavar="B", help="images at a time (1)")
            modes = f"also each case compiled: {', '.join(COMPILE_MODES)} (default)"
            add("--compile", nargs="*", choices=COMPILE_MODES, metavar="MODE", help=modes)
        if kind == "training":
            what = f"also each case with these recomputed in the backward pass: {', '.join(RECOMPUTED)}"
            add("--recompute", nargs="+", choices=RECOMPUTED, metavar="WHAT", help=what)
        if kind == "prediction":
            peers = "also these functions of image and class names, as of err-seg evaluate"
            add("--predictor", nargs="+", metavar="MODULE:FUNCTION", help=peers)
        if kind in ("prediction", "evaluation"):
            sides = "of the image, and of its label map (480 640)"
            add("--image", type=positive, nargs=2, default=(480, 640), metavar=("H", "W"), help=sides)
        add("--rounds", type=positive, default=5, metavar="N", help="how often each case is timed (5)")
        add("--no-reference", action="store_true", help="compare with the first case instead")
        add("--no-demands", action="store_true", help="measure neither memory nor operations, which takes longer")
        add("--output", type=Path, metavar="DIR", help="write results.json, table.md, table.csv and plot.png there")
        add("--opts", nargs="*", default=[], metavar="KEY VALUE", help="overrides, last")

    data = kinds.add_parser("data", allow_abbrev=False)
    data.set_defaults(run=data_costs)
    add = data.add_argument
    add("--preparation", action="store_true", help="measure the preparation of label maps instead")
    add("--decoders", type=Path, metavar="DIR", help="compare Pillow and OpenCV on its JPEGs instead")
    add("--dataset", metavar="NAME", help="a registered data set (default: a few generated images)")
    add("--root", metavar="DIR", help="the data sets' root (default: $DETECTRON2_DATASETS)")
    add("--pictures", dest="images", type=positive, default=64, metavar="N", help="how many to read (%(default)s)")
    add("--crop-size", type=positive, default=640, metavar="S", help="side in pixels (%(default)s)")

    table = kinds.add_parser("table", allow_abbrev=False)
    table.set_defaults(run=table_of_both)
    add = table.add_argument
    add("timings", type=Path, nargs="+", metavar="FILE", help="results.json of err-seg benchmark prediction")
    runs = "a configuration or predictor, as the timings name it, and the output folder of its evaluation"
    add("--runs", nargs="+", required=True, metavar="NAME=RUN", help=runs)
    add("--output", type=Path, required=True, metavar="DIR", help="for table.md, table.csv and plot.png")
    parser.epilog = "\n".join(kind.format_usage() for kind in kinds.choices.values())
    options = parser.parse_args(arguments)
    options.command = shlex.join(["err-seg", "benchmark", *(sys.argv[1:] if arguments is None else arguments)])
    return options


@reporting_errors(1)
def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command."""
    options = parse_arguments(arguments)
    options.run(options)


def network_costs(options: argparse.Namespace) -> None:
    """Measure the network, group by group; what is measured is written after each."""
    from err_seg.lab.benchmarks import report
    from err_seg.lab.benchmarks.cases import cases_of
    from err_seg.lab.benchmarks.machine import measure_machine
    from err_seg.lab.benchmarks.measurement import measure
    from err_seg.utils.device import resolve_device

    logging.getLogger("err_seg.models.build").setLevel(logging.ERROR)  # random weights are what is wanted
    overrides = ["MODEL.CLIP.PRETRAINED", "", "MODEL.TEXT.CACHE_DIR", "none", *options.opts]
    configs = {file: get_cfg(file, overrides) for file in options.config_file}
    cases = [case for name, cfg in configs.items() for case in cases_of(options, name, cfg)]
    device, *others = dict.fromkeys(resolve_device(cfg.MODEL.DEVICE) for cfg in configs.values())
    if others:
        raise ValueError(f"MODEL.DEVICE: the configurations name {device} and {others[0]}; compare them on one")
    machine = measure_machine(device, [case.precision for case in cases])
    print(report.machine_text(machine), flush=True)
    rows = []
    for group in measure(cases, configs, rounds=options.rounds, machine=machine, demands=not options.no_demands):
        rows += group
        print(f"\n{report.group_table(group)}", flush=True)
        if options.output:
            report.save(rows, machine, options.command, options.output)
    print(f"\n{report.EXPLANATION}")


def data_costs(options: argparse.Namespace) -> None:
    """Read training images, or prepare label maps."""
    from err_seg.lab.benchmarks.data import benchmark_preparation, benchmark_reading, compare_decoders

    if options.preparation:
        benchmark_preparation(options.images)
    elif options.decoders:
        compare_decoders(options.decoders, options.images)
    else:
        benchmark_reading(options.dataset, options.root, options.images, options.crop_size)


def table_of_both(options: argparse.Namespace) -> None:
    """Join timings and evaluations."""
    from err_seg.lab.benchmarks.efficiency import join, save

    runs = dict(run.rpartition("=")[::2] for run in options.runs)
    if "" in runs or len(runs) < len(options.runs):
        raise ValueError(f"--runs {' '.join(options.runs)}: expected NAME=RUN each, and each name once")
    print(save(join(options.timings, {name: Path(run) for name, run in runs.items()}), options.output))
    print(f"Written to {options.output}")
