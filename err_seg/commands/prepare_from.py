"""Convert the annotations of your own images to label maps, and write the configuration that names them.

    err-seg prepare from labelme --images streets --output prepared/streets
    err-seg prepare from coco --images val2017 --annotations instances_val2017.json --output prepared/coco_val
    err-seg prepare from yolo --images streets/images/train --annotations streets/data.yaml --output prepared/streets

DIR of --output gets labels/ (a label map for each image), classes.txt and dataset.yaml, written again by every run.
Pixels without annotation are ignored, or have the class of --background. datasets/README.md explains what is converted.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from err_seg.commands.options import command_parser, positive, reporting_errors
from err_seg.config.constants import ANNOTATION_FORMATS


@reporting_errors(1, "rerun the same command")
def main(argv: Sequence[str]) -> int:
    """Run the command; returns 0, or 1 where an annotated image could not be converted."""
    parser = command_parser("prepare from", __doc__)
    add = parser.add_argument
    add("format", choices=ANNOTATION_FORMATS, metavar="FORMAT", help=", ".join(ANNOTATION_FORMATS))
    add("--images", type=Path, metavar="DIR", required=True, help="folder of the images")
    files = "labelme: folder of JSON files, or one (--images); coco: the JSON file; yolo: data.yaml, or labels' folder"
    add("--annotations", type=Path, metavar="PLACE", help=files)
    add("--output", type=Path, metavar="DIR", required=True, help="its name becomes the data set's")
    order = "names in label order, .txt (a class a line), .json or .yaml; default: the format's order, or sorted"
    add("--classes", metavar="FILE", help=order)
    add("--background", metavar="NAME", default="", help="class of pixels without annotation (they are ignored)")
    add("--workers", type=positive, metavar="N", help="processes (one a core)")
    options = parser.parse_args(argv)
    if options.annotations is None and options.format != "labelme":
        parser.error(f"--annotations is needed for {options.format}")
    from err_seg.commands.prepare import describe
    from err_seg.data import load_vocabulary
    from err_seg.data.preparation import default_workers, prepare_from

    classes = load_vocabulary(options.classes) if options.classes else ()
    places = options.images, options.annotations or options.images, options.output
    workers = options.workers or default_workers()
    report = prepare_from(options.format, *places, classes, options.background, workers)
    print(f"{options.format}: {describe(report)} -> {report.folder}", *report.listing.notes, sep="\n  ")
    config = options.output / "dataset.yaml"
    print(f"{config}:\n\n{config.read_text(encoding='utf-8')}")
    print(f"next: err-seg train --config-file {config}, or name it under _BASE_ of a configuration of your own")
    if report.failed:
        print("\nerrors:", *report.failed, sep="\n", file=sys.stderr)
    return 1 if report.failed else 0
