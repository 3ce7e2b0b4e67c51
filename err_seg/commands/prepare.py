"""Convert the data sets' archives to the label maps that training and evaluation read.

    err-seg prepare coco-stuff ade150 --root /data
    err-seg prepare all --check
    err-seg prepare from labelme ...        # annotations of your own images, see: err-seg prepare from --help

Finished files are kept: after an interruption, rerun the same command to continue. datasets/README.md shows where each
archive comes from and goes.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from err_seg.commands.options import command_parser, complain, positive, reporting_errors
from err_seg.config.constants import ANNOTATION_FORMATS, PREPARED
from err_seg.utils.disk import is_disk_full
from err_seg.utils.messages import listed

if TYPE_CHECKING:
    from err_seg.data.preparation.check import SplitCheck
    from err_seg.data.preparation.convert import SplitReport

FROM = """Convert annotations of your own images to label maps, and write the configuration that names them.

    err-seg prepare from labelme --images streets --output prepared/streets
    err-seg prepare from coco --images val2017 --annotations instances_val2017.json --output prepared/instances
    err-seg prepare from yolo --images parts/images/train --annotations parts/data.yaml --output prepared/parts

The folder of --output gets labels/ (a label map for each annotated image), classes.txt and dataset.yaml, which each run
writes again. Pixels without annotation are ignored, or get the class of --background. datasets/README.md has the rules.
"""
SHOWN = 20  # classes, and label maps with errors, of each split that --check shows


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = command_parser("prepare", __doc__)
    add = parser.add_argument
    add("names", nargs="+", choices=[*PREPARED, "all"], metavar="NAME", help=f"{', '.join(PREPARED)}, or all")
    add("--root", metavar="DIR", help="folder of the archives (default: $DETECTRON2_DATASETS, else ./datasets)")
    add("--workers", type=positive, metavar="N", help="processes (one a core)")
    add("--force", action="store_true", help="write again what is there")
    add("--strict", action="store_true", help="fail where a count differs from the protocol's")
    add("--check", action="store_true", help="convert nothing; read the converted files and count every class's pixels")
    return parser.parse_args(argv)


@reporting_errors(1, "finished files are kept, rerun the same command to continue")
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Returns:
        The exit status: 0 everything is fine; 1 an archive or an image's label map is missing, a file is damaged, or
        (``--strict``) a count differs from the protocol's; 2 wrong usage; 130 interrupted.
    """
    argv = sys.argv[1:] if argv is None else argv
    if argv[:1] == ["from"]:
        return convert_annotations(argv[1:])
    options = parse_arguments(argv)
    from err_seg.data import datasets_root
    from err_seg.data.preparation.parallel import default_workers
    from err_seg.data.preparation.sources import PreparationError

    root = datasets_root(options.root)
    options.workers = options.workers or default_workers()
    if not root.is_dir():
        problem = f"the folder of the archives, {root.absolute()}, does not exist: create it and unpack them there"
        return complain(f"{problem}, or name another with --root or $DETECTRON2_DATASETS", 1)
    failures: list[str] = []
    step = check_converted if options.check else convert_archive
    for name in PREPARED if "all" in options.names else dict.fromkeys(options.names):
        try:
            failures += step(name, root, options)
        except (PreparationError, OSError) as error:
            failures.append(str(error))
            if isinstance(error, OSError) and is_disk_full(error):  # for the other data sets, too
                failures.append("free some space there, then rerun the same command; finished files are kept")
                break
    if failures:
        print("\nerrors:", *failures, sep="\n", file=sys.stderr)
    return 1 if failures else 0


def convert_archive(name: str, root: Path, options: argparse.Namespace) -> list[str]:
    """Convert one data set, report, and return what makes the exit status non-zero."""
    from err_seg.data.preparation.convert import prepare

    start = time.perf_counter()
    reports = prepare(name, root, workers=options.workers, force=options.force)
    seconds = time.perf_counter() - start
    failures = []
    for report in reports:
        what = f"{name} {report.split}"
        if not report.listing.pairs:
            found = f"; {report.converted:,} label maps are there already" if report.converted else ""
            print(f"{what}: not in the archive, nothing to convert{found}")
        else:
            print(f"{what}: {describe(report)} -> {report.folder}")
        for note in report.listing.notes:
            print(f"  {note}")
        failures += report.failed
        if missing := report.listing.unlabelled:
            images = f"{len(missing):,} of its images ({listed(missing, 3)})"
            failures.append(f"{what}: no label map for {images}; unpack the label maps again")
        failures += compare_count(what, report.converted, report.expected, options.strict)
    if written := sum(report.written for report in reports):
        print(f"{name}: {written:,} files in {seconds:.1f} s ({written / seconds:.0f} files/s)")
    return failures


def describe(report: "SplitReport") -> str:
    """Say how many label maps were written, kept, left out and skipped."""
    counts = f"{report.written:,} written, {report.kept:,} kept"
    if report.left_out:
        counts += f", {len(report.left_out):,} left out (no class in them; the first: {report.left_out[0]})"
    if report.failed:
        counts += f", {len(report.failed):,} skipped as damaged (listed below)"
    if report.stale:
        counts += f", {report.stale:,} of which an earlier run's label map stays and is not counted"
    return counts


def check_converted(name: str, root: Path, options: argparse.Namespace) -> list[str]:
    """Check one data set, report, and return what makes the exit status non-zero."""
    from err_seg.data.preparation.check import check, write_check

    results = check(name, root, workers=options.workers)
    path = write_check(name, results)
    failures = []
    for result in results:
        what = f"{name} {result.split.name}"
        if not result.found:
            print(f"{what}: not checked, no converted label maps in {result.folder}")
        else:
            print(f"{what}: {result.labels:,} of {result.found:,} label maps are sound in {result.folder}")
        if result.labels:
            print_classes(result)
        failures += [problem for _, problem in result.problems[:SHOWN]]
        if len(result.problems) > SHOWN:
            failures.append(f"{what}: {len(result.problems) - SHOWN:,} more label maps with errors, all in {path}")
        failures += compare_count(what, result.found, result.split.expected, options.strict)
    print(f"all counts are in {path}")
    return failures


def print_classes(result: "SplitCheck") -> None:
    """Print the classes with the most pixels, and the share of ignored pixels."""
    from err_seg.evaluation.results import text_table

    total = int(result.pixels.sum()) + result.ignored
    present = [index for index in (-result.pixels).argsort(kind="stable").tolist() if result.pixels[index]]
    rows, names = [], result.split.spec.evaluated_classes
    for index in present[:SHOWN]:
        pixels, images = int(result.pixels[index]), int(result.images[index])
        rows.append((index, pixels, f"{pixels / total:.2%}", images, names[index]))
    classes = f"{len(present)} of {len(names)} classes occur"
    print(f"{classes}; {result.ignored / total:.1%} of {total:,} pixels are ignored")
    print(text_table(["index", "pixels", "share", "pictures", "class"], rows))
    if len(present) > SHOWN:
        print(f"and {len(present) - SHOWN} more, with fewer pixels")


def compare_count(what: str, found: int, expected: int, strict: bool) -> list[str]:
    """A difference from the protocol's count is a warning, or a failure where ``strict``."""
    if found == expected:
        return []
    kind = "more than the benchmark has" if found > expected else "a subset" if found else "none of them"
    message = f"{what}: {found:,} label maps, the protocol has {expected:,} ({kind})"
    if strict:
        return [message]
    print(f"warning: {message}")
    return []


@reporting_errors(1, "rerun the same command, which starts again")
def convert_annotations(argv: Sequence[str]) -> int:
    """Run ``err-seg prepare from``; returns 1 where an annotated image could not be converted."""
    parser = command_parser("prepare from", FROM)
    add = parser.add_argument
    add("format", choices=ANNOTATION_FORMATS, metavar="FORMAT", help=", ".join(ANNOTATION_FORMATS))
    add("--images", type=Path, metavar="DIR", required=True, help="folder of the images")
    files = "JSON file (labelme: or their folder, by default that of the images); yolo: data.yaml, or folder of labels"
    add("--annotations", type=Path, metavar="PLACE", help=files)
    add("--output", type=Path, metavar="DIR", required=True, help="its name becomes the data set's")
    add("--classes", metavar="FILE", help=".txt (a class a line), .json or .yaml (the format's order, or sorted)")
    add("--background", metavar="NAME", default="", help="class of pixels without annotation (they are ignored)")
    add("--workers", type=positive, metavar="N", help="processes (one a core)")
    options = parser.parse_args(argv)
    if options.annotations is None and options.format != "labelme":
        parser.error(f"{options.format} needs --annotations")
    from err_seg.data import load_vocabulary
    from err_seg.data.preparation.own import prepare_from
    from err_seg.data.preparation.parallel import default_workers

    classes = load_vocabulary(options.classes) if options.classes else ()
    places = options.images, options.annotations or options.images, options.output
    workers = options.workers or default_workers()
    report = prepare_from(options.format, *places, classes, options.background, workers)
    print(f"{options.format}: {describe(report)} -> {report.folder}", *report.listing.notes, sep="\n  ")
    config = options.output / "dataset.yaml"
    print(f"{config}:\n\n{config.read_text(encoding='utf-8')}")
    print(f"next: err-seg train --config-file {config}, or name it under _BASE_ of your own configuration")
    if report.failed:
        print("\nerrors:", *report.failed, sep="\n", file=sys.stderr)
    return 1 if report.failed else 0
