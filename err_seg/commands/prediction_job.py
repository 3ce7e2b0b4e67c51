"""The work of ``err-seg predict``: what it predicts, the results that it writes, and what it prints when it is done."""

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text  # else brackets and colons in names are taken for commands to the terminal

from err_seg import jobs
from err_seg.commands import models
from err_seg.commands.options import complain
from err_seg.jobs.job_outputs import FILES
from err_seg.jobs.result_names import printable
from err_seg.jobs.video import is_video
from err_seg.plugins import package_digests
from err_seg.prediction.attention import escf_with
from err_seg.prediction.contrast import AUTO, Contrast
from err_seg.prediction.model import ERRSeg
from err_seg.prediction.tiles import check_tile
from err_seg.text.prompts import Vocabulary
from err_seg.utils.fingerprint import weights_digest
from err_seg.utils.processes import are_apart, launched_share
from err_seg.visualization.text import first_synonym

ROWS = 30
SINCE_FIRST = ("tile", "refine", "names", "smooth", "bands", "value_range")


def predict(arguments: argparse.Namespace) -> int:
    """Predict this process's share of the images, and finish the job in the first process; returns the exit status."""
    try:
        rank, processes = launched_share()
        names, label_set = models.read_names(arguments), jobs.LabelSet(())
        if arguments.format != ("features",) and not arguments.examples:
            jobs.parse_label_set(names, arguments.background)  # a mistake is reported before weights are loaded
        sources, problems = jobs.collect_sources(arguments.inputs, exclude=arguments.output)
        model = models.load_model(arguments)
        if names == (AUTO,):
            names = model.common_names()[0]
        if arguments.examples:
            names = model.vocabulary_with_examples(names, arguments.examples, use_names=not arguments.label_only)
        contrast, competing = models.read_contrast(arguments.contrast), Contrast()
        if names:
            label_set = jobs.parse_label_set(names, arguments.background)
            competing = model.embed_with_contrast(label_set.vocabulary, contrast)[1]
        check_tile(arguments.tile, model.size)
        if "attention" in arguments.format:
            escf_with(model)
    except (ValueError, OSError) as error:
        return complain(error, 2)
    output = jobs.open_output(
        arguments.output,
        settings_of(arguments, label_set, competing, model),
        source=model.source.facts() if model.source else None,
        files=[FILES[kind] for kind in arguments.format if kind in FILES],
        force=arguments.force,
        rank=rank,
        processes=processes,
    )
    reading = {name: getattr(arguments, name) for name in ("every", "bands", "value_range")}
    items = jobs.iterate_items(sources, rank=rank, world_size=processes, whole_videos=bool(arguments.smooth), **reading)
    if competing.names and rank == 0:
        print(f"{competing} compete with the classes; what they win is none of these (--contrast none: without them)")
    has_videos = any(source.path and is_video(source.path) for source in sources)  # of an unknown number of frames
    try:
        with output as manifest:
            job = jobs.Job(
                model,
                label_set,
                manifest,
                formats=arguments.format,
                batch_size=arguments.batch_size,
                contrast=contrast,
                num_kept=arguments.num_kept,
                tile=arguments.tile,
                refine=arguments.refine,
                smooth=arguments.smooth or 0,
                point=tuple(arguments.point) if arguments.point else None,
                region_names=arguments.names,
                report=jobs.Report(problems=problems if rank == 0 else []),
            )
            return run(job, items, None if has_videos else len(range(rank, len(sources), processes)))
    except jobs.OutputError as error:
        return complain(error, 3)


def settings_of(arguments: argparse.Namespace, label_set: jobs.LabelSet, contrast: Contrast, model: ERRSeg) -> dict:
    """Collect all settings that results depend on."""
    return {
        "classes": label_set.classes,
        "background": label_set.background,
        "threshold": label_set.threshold,
        "num_kept": arguments.num_kept or model.num_kept,
        "format": arguments.format,
        "point": arguments.point,
        "weights": weights_digest(model),
        "precision": model.precision,
        # absent in folders of earlier versions
        **{name: value for name in SINCE_FIRST if (value := getattr(arguments, name))},
        **({"contrast": contrast.names} if contrast.names else {}),
        **({"outlines": "exact"} if "polygons" in arguments.format else {}),
        **({"every": arguments.every} if arguments.smooth else {}),  # of which a result depends on others
        **({"colors": colors} if (colors := Vocabulary(label_set.classes).colors) else {}),
        **({"calibration": repr(model.calibration)} if "review" in arguments.format else {}),
        **({"examples": origins} if (origins := origins_of(label_set.classes)) else {}),
        **({"packages": code} if (code := package_digests(model.settings.get("MODEL.IMPORTS", []))) else {}),
        **model.settings,
    }


def origins_of(classes: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Return, of the classes by example, the digests of their weights and of what they were made from."""
    rows = Vocabulary(classes).rows
    return {name: rows[name][2:] for name in classes if name in rows}


def run(job: jobs.Job, items: Iterator[jobs.Item | jobs.Problem], total: int | None) -> int:
    """Run the job; in the first process, wait for the others and finish it. Returns the exit status."""
    try:
        report = job.run(items, total)
    except (jobs.OutputError, jobs.DeviceError) as error:
        message = f"{error}; what was done before is complete, and the same command continues from there"
        return complain(message, 3 if isinstance(error, jobs.OutputError) else 4)
    whole = jobs.gather_reports(report)
    return 0 if whole is None else finish(whole, job)


def finish(report: jobs.Report, job: jobs.Job) -> int:
    """Write the files of the whole job, print the table of areas and what failed; returns the exit status."""
    folder = job.manifest.folder
    kinds = [kind for kind in job.formats if kind in jobs.GATHERED]
    apart = bool(kinds) and are_apart()
    joined, failed = jobs.gather_results(() if apart else kinds, job.label_set.classes, folder, report.finished)
    summarize(report, folder)
    for file in joined:
        print(f"all results together: {printable(file)}")
    if "video" in kinds and all(result.place.frame is None for result in report.finished):
        print("no videos among the inputs: the overlays of images are in files that end in _frame.jpg")
    if apart:
        print(f"for {', '.join(kinds)} of the whole job, run this again in one process when all are done")
    again = "the images' results are complete, and the same command tries this again"
    for message in (*(problem.message for problem in report.problems), *(f"{reason}; {again}" for reason in failed)):
        print(f"error: {message}", file=sys.stderr)
    return 3 if failed else 1 if report.problems else 0


def summarize(report: jobs.Report, output: Path) -> None:
    """Print which classes were found, and how much of the area they take."""
    if report.done and report.pixels.total() + report.unlabeled:
        total = sum(report.pixels.values()) + report.unlabeled
        new = " new" if report.skipped else ""  # of the others, nothing is known here
        table = Table("class", title=Text(f"{report.done}{new} images, results in {printable(output)}"))
        table.add_column("images", justify="right")
        table.add_column("share of all pixels", justify="right")
        for name, pixels in report.pixels.most_common(ROWS):
            table.add_row(Text(first_synonym(name)), str(report.images[name]), f"{pixels / total:.1%}")
        if len(report.pixels) > ROWS:
            rest = sum(pixels for _, pixels in report.pixels.most_common()[ROWS:])
            table.add_row(f"{len(report.pixels) - ROWS} more", "", f"{rest / total:.1%}")
        if report.unlabeled:
            table.add_row("none of these", "", f"{report.unlabeled / total:.1%}")
        Console().print(table)
    for source, name in list(report.renamed.items())[:ROWS]:
        print(f"{source}: results are named {name}, since those of another image have the plain name")
    if len(report.renamed) > ROWS:
        print(f"and {len(report.renamed) - ROWS} more; all are in {printable(output)}/manifest*.jsonl")
    if report.done:
        print(f"the network took {report.network} (reading and writing go on meanwhile)")
    print(f"{report.done} done, {report.skipped} were done before, {len(report.problems)} failed")
