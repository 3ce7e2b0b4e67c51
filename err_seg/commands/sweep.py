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
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING

from err_seg.commands.options import add_pinning_options, command_parser, positive, reporting_errors
from err_seg.config.constants import ENGINES

if TYPE_CHECKING:
    from err_seg.lab.sweeps.definition import Sweep
    from err_seg.lab.sweeps.plan import Run


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
    from err_seg.lab.sweeps.executor import check_sweep, open_data
    from err_seg.lab.sweeps.plan import plan_runs, select_runs
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
    if not arguments.dry_run:
        for _, _, wanted, _ in plans:
            open_data(wanted)
    failures = []
    for sweep, runs, wanted, folder in plans:
        with writing_tables(folder, runs):
            failures += do_sweep(sweep, runs, wanted, folder, arguments, command)
    for line in failures:
        print(f"error: {line}", file=sys.stderr)
    return 1 if failures else 0


@contextmanager
def writing_tables(folder: Path, runs: "list[Run]") -> Iterator[None]:
    """During a ``with`` block, let no sweep over other runs write its tables to a folder.

    Raises:
        SweepError: one is doing so.
    """
    from err_seg.lab.sweeps.definition import SweepError
    from err_seg.utils.fingerprint import fingerprint
    from err_seg.utils.locks import locked

    lock, own = folder.with_name(f".{folder.name}.lock"), fingerprint({"runs": [str(r.results) for r in runs]})
    with locked(lock, own) as held:
        if held is None and lock.read_text(encoding="utf-8") != own:
            problem = f"another sweep is writing the table of other settings or seeds to {folder} at this moment"
            raise SweepError(f"{problem}; wait for it, or choose another --output")
        yield


def do_sweep(
    sweep: "Sweep", runs: "list[Run]", wanted: "list[Run]", folder: Path, arguments: argparse.Namespace, command: str
) -> list[str]:
    """Run what is missing of a sweep, and write its tables before, after each run and at the end.

    Returns:
        One line for each step that failed.
    """
    from err_seg.lab.sweeps.display import Display
    from err_seg.lab.sweeps.executor import work_through
    from err_seg.lab.sweeps.results import measured_rows
    from err_seg.lab.sweeps.run_steps import Workers
    from err_seg.lab.sweeps.tables import markdown_table, save_tables

    def write_tables() -> None:
        save_tables(sweep, measured_rows(sweep, runs), folder, command)

    print(f"== {sweep.title}", flush=True)
    write_tables()  # so that errors in writing show before anything is run
    try:
        if not arguments.dry_run:
            workers = Workers(arguments.jobs, arguments.num_gpus, arguments.engine)
            return work_through(wanted, workers, Display(), write_tables, sweep.title)
        for run in wanted:
            if not run.is_evaluated():
                print(f"missing: {run.title} ({run.evaluation.folder})")
        return []
    finally:
        write_tables()
        print(markdown_table(sweep, measured_rows(sweep, runs)))
        print(f"Written to {folder}", flush=True)


def load_sweeps(files: list[Path], *, mini: bool) -> "list[Sweep]":
    """Read the files; if there are several, those with nothing for the miniature world are skipped."""
    from err_seg.lab.sweeps.definition import NoMiniSweep, load_sweep

    sweeps = []
    for file in files:
        try:
            sweeps.append(load_sweep(file, mini=mini))
        except NoMiniSweep as error:
            if len(files) == 1:
                raise
            print(f"passed over: {error}", flush=True)
    return sweeps
