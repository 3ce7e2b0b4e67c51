"""Label every pixel of your own images and videos with your own words.

    err-seg predict photo.jpg --classes "cat, sofa, wall"
    err-seg predict holiday/ "clips/*.mp4" --classes ade150 --output results --format overlay,labels

The default model is err-seg-b, fetched once from the Hugging Face hub. The same command continues an interrupted job.
Under torchrun or accelerate launch, the processes divide the images. More: docs/using.md.

Exit status: 0 all done; 1 some inputs could not be used, all others are done; 2 wrong options, words or weights,
nothing done; 3 results could not be written; 4 the device failed; 130 interrupted.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from err_seg.commands.options import add_model_options, add_words_options, command_parser, positive
from err_seg.config.constants import FORMATS

if TYPE_CHECKING:
    from err_seg.jobs import Item, Job, LabelSet, Problem, Report
    from err_seg.jobs.inputs import Source
    from err_seg.prediction.model import ERRSeg


def format_names(text: str) -> tuple[str, ...]:
    """Read the value of --format."""
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    if not names or (unknown := [name for name in names if name not in FORMATS]):
        raise argparse.ArgumentTypeError(f"{', '.join(unknown) if names else 'none'}: choose from {', '.join(FORMATS)}")
    return names


def coordinate(text: str) -> int:
    """Read a position in an image."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of at least 0, and so outside of every image")
    return int(text)


def tile_size(text: str) -> int | str:
    """Read the value of --tile."""
    return text if text == "auto" else positive(text)


def names_or_threshold(text: str) -> str:
    """Read a value of --background."""
    if not text.strip(" \t,;"):
        raise argparse.ArgumentTypeError(f"{text!r} is neither names nor a probability in 0..1")
    return text


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = command_parser("predict", __doc__)
    parser.add_argument(
        "inputs",
        nargs="+",
        metavar="INPUT",
        help="images, videos, folders, globs, https addresses of images, - (standard input)",
    )
    add_words_options(parser)
    parser.add_argument(
        "--background",
        type=names_or_threshold,
        action="append",
        default=[],
        metavar="NAMES|THRESHOLD",
        help='pixels that belong to none of the classes: those of further words ("wall, floor") or, given a number, '
        "those whose highest probability is below it; may be given twice",
    )
    parser.add_argument("--num-kept", type=positive, metavar="K", help="how many of the classes an image may show")
    parser.add_argument("--output", type=Path, default=Path("output/predictions"), metavar="DIR")
    parser.add_argument(
        "--format", type=format_names, default=("overlay",), help=f"any of {','.join(FORMATS)} (overlay)"
    )
    parser.add_argument("--names", action="store_true", help="write the names on the regions of the overlay")
    parser.add_argument(
        "--point", type=coordinate, nargs=2, metavar=("X", "Y"), help="pixel that attention is shown for (middle)"
    )
    parser.add_argument(
        "--tile",
        type=tile_size,
        metavar="PIXELS",
        help="label large images in windows, each of so many pixels a side; auto: the input size of the network",
    )
    parser.add_argument("--refine", action="store_true", help="let the borders follow the edges of the image")
    parser.add_argument("--batch-size", type=positive, default=1, metavar="N", help="images, or windows, at a time (1)")
    parser.add_argument("--every", type=positive, default=1, metavar="N", help="take each n-th frame of a video (1)")
    parser.add_argument(
        "--smooth",
        type=positive,
        metavar="N",
        help="average the probabilities of each frame of a video with those of N frames before and N after it",
    )
    parser.add_argument(
        "--force", action="store_true", help="ignore finished results and replace those of other settings"
    )
    add_model_options(parser)
    arguments = parser.parse_args(argv)
    if arguments.point and "attention" not in arguments.format:
        parser.error("--point is the pixel that attention is shown for: it needs --format attention")
    if arguments.names and not {"overlay", "video"} & set(arguments.format):
        parser.error("--names writes on overlays: it needs --format overlay or video")
    if "geotiff" in arguments.format and not find_spec("rasterio"):
        parser.error('--format geotiff needs rasterio: pip install "err_seg[geo]"')
    if arguments.tile and "attention" in arguments.format:
        parser.error("attention is shown for the image as a whole: leave out --tile")
    if arguments.smooth and "attention" in arguments.format:
        parser.error("attention is shown for single frames: leave out --smooth")
    return arguments


def main(argv: Sequence[str] | None = None) -> int:
    """Predict, write the results, print the table of areas and what failed; returns the exit status."""
    arguments = parse_arguments(argv)
    if hasattr(sys.stdout, "reconfigure"):  # a notebook's has not
        sys.stdout.reconfigure(errors="backslashreplace")  # names of files may be any bytes
    try:
        return predict(arguments)
    except KeyboardInterrupt:
        return complain("interrupted; the same command continues from here", 130)


def predict(arguments: argparse.Namespace) -> int:
    """Predict this process's share of the images, and finish the job in the first process; returns the exit status."""
    from err_seg.commands.models import load_model, read_names
    from err_seg.jobs import Job, OutputError, Report, collect_sources, iterate_items, open_output, parse_label_set
    from err_seg.jobs.job_outputs import FILES
    from err_seg.prediction.attention import escf_with
    from err_seg.utils.processes import launched_share

    try:
        rank, processes = launched_share()
        label_set = parse_label_set(read_names(arguments), arguments.background)
        sources, problems = collect_sources(arguments.inputs, exclude=arguments.output)
        model = load_model(arguments)
        model.embed_vocabulary(label_set.vocabulary)
        if "attention" in arguments.format:
            escf_with(model)
    except (ValueError, OSError) as error:
        return complain(error, 2)
    output = open_output(
        arguments.output,
        settings_of(arguments, label_set, model),
        source=model.source.facts() if model.source else None,
        files=[FILES[kind] for kind in arguments.format if kind in FILES],
        force=arguments.force,
        rank=rank,
        processes=processes,
    )
    whole_videos = bool(arguments.smooth)
    items = iterate_items(sources, rank=rank, world_size=processes, every=arguments.every, whole_videos=whole_videos)
    try:
        with output as manifest:
            job = Job(
                model,
                label_set,
                manifest,
                formats=arguments.format,
                batch_size=arguments.batch_size,
                num_kept=arguments.num_kept,
                tile=arguments.tile,
                refine=arguments.refine,
                smooth=arguments.smooth or 0,
                point=tuple(arguments.point) if arguments.point else None,
                region_names=arguments.names,
                report=Report(problems=problems if rank == 0 else []),
            )
            return run(job, items, count_items(sources, rank, processes))
    except OutputError as error:
        return complain(error, 3)


def settings_of(arguments: argparse.Namespace, label_set: "LabelSet", model: "ERRSeg") -> dict:
    """Collect all settings that results depend on."""
    from err_seg.text.vocabulary import Vocabulary
    from err_seg.utils.fingerprint import weights_digest

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
        **{name: value for name in ("tile", "refine", "names", "smooth") if (value := getattr(arguments, name))},
        **({"every": arguments.every} if arguments.smooth else {}),  # of which a result depends on others
        **({"colors": colors} if (colors := Vocabulary(label_set.classes).colors) else {}),
        **model.settings,
    }


def count_items(sources: "list[Source]", rank: int, world_size: int) -> int | None:
    """Return this process's number of images; ``None`` if videos make it unknown."""
    from err_seg.jobs.video import is_video

    if any(source.path and is_video(source.path) for source in sources):
        return None
    return len(range(rank, len(sources), world_size))


def run(job: "Job", items: "Iterator[Item | Problem]", total: int | None) -> int:
    """Run the job; in the first process, wait for the others and finish it. Returns the exit status."""
    from err_seg.jobs import DeviceError, OutputError, gather_reports

    try:
        report = job.run(items, total)
    except (OutputError, DeviceError) as error:
        message = f"{error}; what was done before is complete, and the same command continues from there"
        return complain(message, 3 if isinstance(error, OutputError) else 4)
    whole = gather_reports(report)
    return 0 if whole is None else finish(whole, job)


def finish(report: "Report", job: "Job") -> int:
    """Write the files of the whole job, print the table of areas and what failed; returns the exit status."""
    from err_seg.commands.summary import summarize
    from err_seg.jobs import GATHERED, gather_results
    from err_seg.jobs.result_names import printable
    from err_seg.utils.processes import are_apart

    folder = job.manifest.folder
    kinds = [kind for kind in job.formats if kind in GATHERED]
    apart = bool(kinds) and are_apart()
    joined, failed = gather_results(() if apart else kinds, job.label_set.classes, folder, report.finished)
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


def complain(message: object, status: int) -> int:
    """Print an error and return the exit status."""
    print(f"error: {message}", file=sys.stderr)
    return status
