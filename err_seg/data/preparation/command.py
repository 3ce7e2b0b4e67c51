"""The command: convert or check any number of data sets, and report."""

import argparse
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from err_seg.data.preparation.check import SplitCheck, check, write_check
from err_seg.data.preparation.conversions import CONVERSIONS
from err_seg.data.preparation.convert import SplitReport, prepare
from err_seg.data.preparation.parallel import default_workers
from err_seg.data.preparation.sources import PreparationError
from err_seg.data.spec import datasets_root
from err_seg.utils.disk import is_disk_full
from err_seg.utils.messages import listed

_INTERRUPTED = 130
_SHOWN = 20  # classes, and files with errors, that --check shows of each split


def run(options: argparse.Namespace) -> int:
    """Convert or check what ``err-seg prepare`` names.

    Returns:
        The exit status: 0 everything is fine; 1 an archive or an image's label map is missing, a file is damaged, or
        (``--strict``) a count differs from the protocol's; 130 interrupted.
    """
    root = datasets_root(options.root)
    names = list(CONVERSIONS) if "all" in options.names else list(dict.fromkeys(options.names))
    if not root.is_dir():
        print(
            f"the folder of the archives, {root.absolute()}, does not exist: make it and unpack them there, or name "
            "another with --root or $DETECTRON2_DATASETS",
            file=sys.stderr,
        )
        return 1
    failures: list[str] = []
    try:
        for name in names:
            try:
                step = _check if options.check else _prepare
                failures += step(name, root, options)
            except PreparationError as error:
                failures.append(str(error))
            except OSError as error:
                failures.append(str(error))
                if is_disk_full(error):  # for the other data sets, too
                    failures.append("make space there; finished files are kept, the same command continues")
                    break
    except KeyboardInterrupt:
        print("\ninterrupted; finished files are kept, the same command continues", file=sys.stderr)
        return _INTERRUPTED
    if failures:
        print("\nerrors:", file=sys.stderr)
        print("\n".join(failures), file=sys.stderr)
    return 1 if failures else 0


def _prepare(name: str, root: Path, options: argparse.Namespace) -> list[str]:
    """Convert, report, and return what makes the exit status non-zero."""
    start = time.perf_counter()
    reports = prepare(name, root, workers=options.workers or default_workers(), force=options.force)
    seconds = time.perf_counter() - start
    failures = []
    for report in reports:
        _print_report(name, report)
        failures += [complaint for _, complaint in report.failed]
        failures += _unlabelled(f"{name} {report.split}", report)
        failures += _compare_count(f"{name} {report.split}", report.converted, report.expected, options.strict)
    written = sum(report.written for report in reports)
    if written:
        print(f"{name}: {written:,} files in {seconds:.1f} s ({written / seconds:.0f} files/s)")
    return failures


def _unlabelled(what: str, report: SplitReport) -> list[str]:
    if not report.unlabelled:
        return []
    count = f"{len(report.unlabelled):,} of its images"
    return [f"{what}: no label map for {count} ({listed(report.unlabelled, 3)}); unpack the label maps again"]


def _print_report(name: str, report: SplitReport) -> None:
    if report.absent:
        found = f"; {report.converted:,} label maps are there already" if report.converted else ""
        print(f"{name} {report.split}: not in the archive, nothing to convert{found}")
    else:
        print(f"{name} {report.split}: {_counts(report)} -> {report.folder}")
    for note in report.notes:
        print(f"  {note}")


def _counts(report: SplitReport) -> str:
    counts = f"{report.written:,} written, {report.kept:,} kept"
    if report.left_out:
        counts += f", {len(report.left_out):,} left out (no class in them; the first: {report.left_out[0]})"
    if report.failed:
        counts += f", {len(report.failed):,} skipped as damaged (listed below)"
    if report.stale:
        counts += f", {len(report.stale):,} of which an earlier run's label map stays and is not counted"
    return counts


def _check(name: str, root: Path, options: argparse.Namespace) -> list[str]:
    """Check, report, and return what makes the exit status non-zero."""
    results = check(name, root, workers=options.workers or default_workers())
    path = write_check(name, results)
    failures = []
    for result in results:
        what = f"{name} {result.split}"
        if result.found:
            _print_check(what, result)
        else:
            print(f"{what}: not checked, no converted label maps in {result.folder}")
        failures += [problem for _, problem in result.problems[:_SHOWN]]
        if len(result.problems) > _SHOWN:
            failures.append(f"{what}: {len(result.problems) - _SHOWN:,} more label maps with errors, all in {path}")
        failures += _compare_count(what, result.found, result.expected, options.strict)
    print(f"all counts are in {path}")
    return failures


def _print_check(what: str, result: SplitCheck) -> None:
    if result.labels:
        Console().print(_class_table(what, result))
    print(f"{what}: {result.labels:,} of {result.found:,} label maps are sound in {result.folder}")
    if result.labels:
        total = int(result.pixels.sum()) + result.ignored
        print(f"  {result.ignored / total:.1%} of their {total:,} pixels are ignored")


def _class_table(what: str, result: SplitCheck) -> Table:
    total = int(result.pixels.sum()) + result.ignored
    present = [index for index in (-result.pixels).argsort(kind="stable") if result.pixels[index]]
    more = len(present) - _SHOWN
    table = Table(
        title=f"{what}: {len(present)} of {len(result.class_names)} classes occur",
        title_justify="left",
        caption=f"and {more} more, with fewer pixels" if more > 0 else None,
        caption_justify="left",
    )
    for header in ("index", "pixels", "share", "pictures"):
        table.add_column(header, justify="right")
    table.add_column("class", max_width=36, no_wrap=True, overflow="ellipsis")
    for index in present[:_SHOWN]:
        table.add_row(
            str(index),
            f"{result.pixels[index]:,}",
            f"{result.pixels[index] / total:.2%}",
            f"{result.images[index]:,}",
            escape(result.class_names[index]),
        )
    return table


def _compare_count(what: str, found: int, expected: int, strict: bool) -> list[str]:
    """A difference from the protocol's count is a warning, or a failure where ``strict``."""
    if found == expected:
        return []
    kind = "more than the benchmark has" if found > expected else "a subset" if found else "none of them"
    message = f"{what}: {found:,} label maps, the protocol has {expected:,} ({kind})"
    if strict:
        return [message]
    print(f"warning: {message}")
    return []
