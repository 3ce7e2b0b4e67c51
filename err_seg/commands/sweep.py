"""Measure tables of variants and seeds. Missing runs are made, and the table is written after each.

    err-seg sweep configs/ablations/table_v.yaml --mini          on the miniature world, minutes to hours
    err-seg sweep configs/ablations/table_v.yaml --num-gpus 4    on the real data
    err-seg sweep configs/ablations/*.yaml --dry-run             what would be run
    err-seg sweep configs/ablations/table_xiii.yaml --weights err-seg-b        evaluates, trains nothing
    err-seg sweep my_sweep.yaml SOLVER.MAX_ITER 40000 --seeds 0 1 2

A sweep is a YAML file; err_seg/lab/sweeps/definition.py describes it. It may be stopped or killed at any moment; the
same command continues it. All sweeps with the same --output share runs of equal settings. Tables (Markdown,
CSV, JSON) and plots go to OUTPUT/<name of the sweep>/, runs to OUTPUT/runs/.
"""

import argparse
import logging
import shlex
import sys
from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path

from err_seg.commands.options import add_pinning_options, command_parser, positive, reporting_errors
from err_seg.config.constants import ENGINES


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = command_parser("sweep", __doc__)
    add = parser.add_argument
    add("sweeps", nargs="+", type=Path, metavar="FILE", help="YAML files of sweeps, such as configs/ablations/*.yaml")
    add("--mini", action="store_true", help="on the miniature world, which needs nothing downloaded")
    add("--scenes", type=positive, nargs=3, metavar=("TRAIN", "VAL", "TEST"), help="of the miniature world")
    add("--output", type=Path, default=Path("output/sweeps"), metavar="DIR", help="default: output/sweeps")
    seeds = "only these; others than the file's are added to the table"
    add("--seeds", type=int, nargs="+", default=[], metavar="S", help=seeds)
    add("--variants", nargs="+", default=[], metavar="NAME", help="only these rows")
    add("--weights", metavar="W", help="to evaluate instead of training: a released model's name, USER/REPO, or a file")
    add("--jobs", type=positive, default=1, metavar="N", help="runs at a time, each with its share of GPUs and cores")
    add("--num-gpus", type=positive, default=1, metavar="N", help="processes of each run, as err-seg train")
    add("--engine", default="auto", choices=ENGINES, help="as err-seg train")
    add("--dry-run", action="store_true", help="list what is missing, and write the tables of what is there")
    add("opts", nargs="*", metavar="KEY VALUE", help="overrides of every variant's configuration, before the options")
    add_pinning_options(parser)
    arguments = parser.parse_intermixed_args(argv)
    # files and overrides differ by their form: no key of a setting is a file's name
    files = list(takewhile(lambda item: item.suffix in (".yaml", ".yml"), arguments.sweeps))
    arguments.opts = [str(item) for item in arguments.sweeps[len(files) :]] + arguments.opts
    arguments.sweeps = files
    return arguments


@reporting_errors(1, "the same command continues")
def main(argv: Sequence[str] | None = None) -> int:
    """Check all sweeps, then run what is missing and write the tables, one after the other."""
    arguments = parse_arguments(argv)
    from err_seg.commands.models import find_weights
    from err_seg.lab.sweeps.definition import load_sweeps
    from err_seg.lab.sweeps.executor import check_sweep, open_data, run_sweep
    from err_seg.lab.sweeps.plan import plan_runs, select_runs
    from err_seg.lab.sweeps.run_steps import Workers
    from err_seg.lab.sweeps.tables import settings_text
    from err_seg.mini.files import SCENES

    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    command = shlex.join(["err-seg", "sweep", *(sys.argv[1:] if argv is None else argv)])
    sweeps = load_sweeps(arguments.sweeps, mini=arguments.mini)
    scenes = dict(zip(SCENES, arguments.scenes or SCENES.values(), strict=True)) if arguments.mini else {}
    weights = find_weights(arguments)
    plans = []
    for sweep in sweeps:
        store, given = arguments.output / "runs", {"seeds": arguments.seeds, "weights": weights, "scenes": scenes}
        runs = plan_runs(sweep, store, arguments.opts, **given)
        wanted = select_runs(runs, arguments.variants, [] if weights else arguments.seeds)
        check_sweep(sweep, runs)
        print(f"== {sweep.title}\n{settings_text(sweep, wanted)}", flush=True)
        folder = arguments.output / (f"{sweep.name}-{runs[0].training.folder.name}" if weights else sweep.name)
        plans.append((sweep, runs, wanted, folder))
    workers = None if arguments.dry_run else Workers(arguments.jobs, arguments.num_gpus, arguments.engine)
    if workers:
        for _, _, wanted, _ in plans:
            open_data(wanted)
    failures = [failure for plan in plans for failure in run_sweep(*plan, workers, command)]
    for line in failures:
        print(f"error: {line}", file=sys.stderr)
    return 1 if failures else 0
