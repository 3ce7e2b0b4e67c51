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
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from err_seg.commands.options import add_model_options, add_words_options, command_parser, complain, positive
from err_seg.config.constants import FORMATS


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


def band_numbers(text: str) -> tuple[int, ...]:
    """Read the value of --bands."""
    return tuple(positive(number.strip()) for number in text.split(","))


def value_range(text: str) -> tuple[float, float] | str:
    """Read the value of --value-range."""
    low, _, high = text.partition(",")
    if text != "file" and not float(low) < float(high):
        raise ValueError
    return text if text == "file" else (float(low), float(high))


def names_or_threshold(text: str) -> str:
    """Read a value of --background."""
    if not text.strip(" \t,;"):
        raise argparse.ArgumentTypeError(f"{text!r} is neither names nor a probability in 0..1")
    return text


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = command_parser("predict", __doc__)
    add = parser.add_argument
    inputs = "images, videos, folders, globs, https addresses of images, - (standard input)"
    add("inputs", nargs="+", metavar="INPUT", help=inputs)
    add_words_options(parser, required=False)
    shown = "a folder for each class by example, of its name, with images NAME.jpg and masks NAME_mask.png"
    add("--examples", type=Path, metavar="FOLDER", help=shown)
    add("--label-only", action="store_true", help="the names of these classes say nothing; use the examples alone")
    add(
        "--background",
        type=names_or_threshold,
        action="append",
        default=[],
        metavar="NAMES|THRESHOLD",
        help='pixels that belong to none of the classes: those of further words ("wall, floor") or, given a number, '
        "those whose highest probability is below it; may be given twice",
    )
    competing = 'names that compete with the classes, and whose pixels belong to none of them: "common", "none", or '
    competing += "names, a vocabulary or a file (common, for a few classes)"
    add("--contrast", metavar="NAMES", help=competing)
    add("--num-kept", type=positive, metavar="K", help="how many of the classes an image may show")
    add("--output", type=Path, default=Path("output/predictions"), metavar="DIR")
    add("--format", type=format_names, default=("overlay",), help=f"any of {','.join(FORMATS)} (overlay)")
    add("--names", action="store_true", help="write the names on the regions of the overlay")
    add("--point", type=coordinate, nargs=2, metavar=("X", "Y"), help="pixel that attention is shown for (middle)")
    windows = "label large images in windows, each of so many pixels a side; auto: the input size of the network"
    add("--tile", type=tile_size, metavar="PIXELS", help=windows)
    add("--refine", action="store_true", help="let the borders follow the edges of the image")
    add("--bands", type=band_numbers, metavar="R,G,B", help="of TIFFs, such as 3,2,1; or one, as grey")
    extremes = "values of TIFFs that are black and white, such as 0,3000; file: the extremes of each"
    add("--value-range", type=value_range, metavar="B,W", help=extremes)
    add("--batch-size", type=positive, default=1, metavar="N", help="images, or windows, at a time (1)")
    add("--every", type=positive, default=1, metavar="N", help="take each n-th frame of a video (1)")
    reach = "average the probabilities of each frame of a video with those of N frames before and N after it"
    add("--smooth", type=positive, metavar="N", help=reach)
    add("--force", action="store_true", help="ignore finished results and replace those of other settings")
    add_model_options(parser)
    arguments = parser.parse_args(argv)
    if arguments.point and "attention" not in arguments.format:
        parser.error("--point is the pixel that attention is shown for: it needs --format attention")
    if arguments.names and not {"overlay", "video"} & set(arguments.format):
        parser.error("--names writes on overlays: it needs --format overlay or video")
    if "geotiff" in arguments.format and not find_spec("rasterio"):
        parser.error('--format geotiff needs rasterio: pip install "err_seg[geo]"')
    if (arguments.smooth or arguments.tile) and {"attention", "features"} & set(arguments.format):
        parser.error("attention is shown for the image as a whole, and so are features: leave out --smooth and --tile")
    alone = arguments.format == ("features",)
    if alone == any(given is not None for given in (arguments.classes, arguments.classes_file, arguments.examples)):
        parser.error("give --classes, --classes-file or --examples; --format features alone needs none: leave them out")
    if alone and (arguments.background or arguments.contrast or arguments.num_kept or arguments.refine):
        parser.error("--format features alone has no classes: no --background, --contrast, --num-kept or --refine")
    if arguments.label_only and not arguments.examples:
        parser.error("--label-only says how names count beside examples: it needs --examples")
    return arguments


def main(argv: Sequence[str] | None = None) -> int:
    """Predict, write the results, print the table of areas and what failed; returns the exit status."""
    arguments = parse_arguments(argv)
    if hasattr(sys.stdout, "reconfigure"):  # a notebook's has not
        sys.stdout.reconfigure(errors="backslashreplace")  # names of files may be any bytes
    try:
        from err_seg.commands.prediction_job import predict

        return predict(arguments)
    except KeyboardInterrupt:
        return complain("interrupted; the same command continues from here", 130)
