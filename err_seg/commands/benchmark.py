"""Measure what prediction, training and reading cost.

    err-seg benchmark prediction --config-file configs/err_seg_convnext_b.yaml \\
        --num-classes 847 --num-kept 48 --picture 1500 2000 MODEL.CLIP.PRETRAINED ""
    err-seg benchmark training --config-file configs/err_seg_convnext_b.yaml --size 640 --batch-size 4
    err-seg benchmark data --preparation --pictures 400

prediction: seconds, and memory above that of the loaded model. training: a step with the loss on the kept classes,
against the dense loss over all classes; without --config-file it is the base network at a small size with the text
tower frozen, so that two processor cores need about a minute. data: training images read, or label maps prepared, a
second a core, and what the time goes into. Weights do not matter for any of this, so random ones will do.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from err_seg.commands.options import add_config_options, command_parser, positive

QUICK = ["MODEL.CLIP.TEXT_TUNING", "none", "INPUT.CROP_SIZE", 320, "INPUT.SIZE", 320]


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = command_parser("benchmark", __doc__)
    kinds = parser.add_subparsers(required=True, metavar="prediction | training | data")

    prediction = kinds.add_parser("prediction", allow_abbrev=False)
    prediction.set_defaults(run=prediction_costs)
    prediction.add_argument("--num-classes", type=positive, default=150, metavar="T", help="vocabulary (150)")
    prediction.add_argument("--num-kept", type=positive, metavar="K", help="classes kept (the configuration's)")
    prediction.add_argument(
        "--picture", dest="image", type=positive, nargs=2, default=(480, 640), metavar=("H", "W"), help="(480 640)"
    )
    prediction.add_argument("--repeat", type=positive, default=3, metavar="N", help="timed after the first (3)")
    add_config_options(prediction, required=True)

    training = kinds.add_parser("training", allow_abbrev=False)
    training.set_defaults(run=training_costs)
    training.add_argument("--size", type=positive, metavar="S", help="side of the crop (the configuration's)")
    training.add_argument("--batch-size", type=positive, default=1, metavar="B", help="images (1)")
    training.add_argument("--steps", type=positive, default=2, metavar="N", help="timed, after one to warm up (2)")
    training.add_argument("--vocabulary", default="coco_stuff", metavar="NAME", help="whose classes (coco_stuff)")
    training.add_argument("--json", type=Path, metavar="FILE", help="also write the figures to a JSON file")
    add_config_options(training)

    data = kinds.add_parser("data", allow_abbrev=False)
    data.set_defaults(run=data_costs)
    data.add_argument("--preparation", action="store_true", help="measure the preparation of label maps instead")
    data.add_argument("--decoders", type=Path, metavar="DIR", help="compare Pillow and OpenCV on its JPEGs instead")
    data.add_argument("--dataset", metavar="NAME", help="a registered data set (default: a few generated images)")
    data.add_argument("--root", metavar="DIR", help="the data sets' root (default: $DETECTRON2_DATASETS)")
    data.add_argument(
        "--pictures", dest="images", type=positive, default=64, metavar="N", help="how many to read (%(default)s)"
    )
    data.add_argument("--crop-size", type=positive, default=640, metavar="S", help="side in pixels (%(default)s)")
    data.add_argument("--color-jitter", choices=("ssd", "none"), default="ssd", help="(%(default)s)")
    parser.epilog = "\n".join(kind.format_usage() for kind in kinds.choices.values())
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command."""
    options = parse_arguments(arguments)
    try:
        options.run(options)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def prediction_costs(options: argparse.Namespace) -> None:
    """Predict an image of noise."""
    from err_seg.benchmarks.prediction import benchmark_prediction
    from err_seg.config import get_cfg

    benchmark_prediction(
        get_cfg(options.config_file, options.opts),
        num_classes=options.num_classes,
        num_kept=options.num_kept,
        image=tuple(options.image),
        repeat=options.repeat,
    )


def training_costs(options: argparse.Namespace) -> None:
    """Train on noise with either loss."""
    from err_seg.benchmarks.training import benchmark_training
    from err_seg.config import get_cfg
    from err_seg.data import load_vocabulary
    from err_seg.files import write_json

    quick = [] if options.config_file else QUICK
    sizes = ["INPUT.CROP_SIZE", options.size, "INPUT.SIZE", options.size] if options.size else []
    cfg = get_cfg(options.config_file, ["MODEL.CLIP.PRETRAINED", "", *quick, *sizes, *options.opts])
    vocabulary = load_vocabulary(options.vocabulary)
    figures = benchmark_training(cfg, vocabulary, batch_size=options.batch_size, steps=options.steps)
    if options.json:
        write_json(options.json, figures)


def data_costs(options: argparse.Namespace) -> None:
    """Read training images, or prepare label maps."""
    from err_seg.benchmarks.data import benchmark_preparation, benchmark_reading, compare_decoders

    if options.preparation:
        benchmark_preparation(options.images)
    elif options.decoders:
        compare_decoders(options.decoders, options.images)
    else:
        benchmark_reading(
            options.dataset,
            options.root,
            images=options.images,
            crop_size=options.crop_size,
            color_jitter=options.color_jitter,
        )
