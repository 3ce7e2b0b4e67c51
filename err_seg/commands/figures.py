"""Draw the paper's figures for your own images, words, data sets and models.

    err-seg figures attention photo.jpg --classes-file ade20k_150 --class sky --point 120 80
    err-seg figures attention-share --datasets ade20k_150_val --num-kept 32 150
    err-seg figures attention-share --mini 64 --model mini
    err-seg figures grid a.jpg b.jpg --classes "dog, grass" --classes "brown dog, white dog, grass"

attention: where SFM looks within the map of a class, with all classes kept and with K of them (Fig. 2).
attention-share: how much of CFM's attention goes to classes that an image does not show (Proposition 1). grid: images
beside the predictions for lists of words (Fig. 8 to 10). More: docs/figures.md.
"""

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from err_seg.commands.options import add_model_options, add_words_options, command_parser, positive, reporting_errors
from err_seg.config.constants import DEFAULT_MODEL

if TYPE_CHECKING:
    from PIL import Image

    from err_seg.lab.analysis.image_grid import Column

OUTPUT = Path("output/paper_figures")
NO_WEIGHTS = "These results mean nothing: the network has random weights. Set MODEL.WEIGHTS."


def draw_attention(options: argparse.Namespace) -> Path:
    """Fig. 2."""
    from err_seg.commands.models import load_model, read_names
    from err_seg.data.images import read_image, read_label
    from err_seg.lab.analysis.attention_comparison import compare_attention, redundancy_figure
    from err_seg.text.prompts import check_vocabulary

    image = read_image(options.image)
    labels = None if options.labels is None else read_label(options.labels)
    comparison = compare_attention(
        load_model(options),
        image,
        check_vocabulary(read_names(options)),
        class_name=options.class_name,
        point=options.point and tuple(options.point),
        num_kept=options.num_kept,
        labels=labels,
    )
    return save(redundancy_figure(comparison), options)


def measure_shares(options: argparse.Namespace) -> Path:
    """Proposition 1."""
    from err_seg.commands.models import load_model, open_pairs
    from err_seg.config import get_cfg
    from err_seg.data import register_entries
    from err_seg.lab.analysis import attention_share as analysis
    from err_seg.mini.files import mini_world_name
    from err_seg.models import hub
    from err_seg.visualization.plots import save_figure

    overrides = [*(("DATASETS.ROOT", options.root) if options.root else ()), *options.opts]
    cfg = get_cfg(hub.config_of(options.config_file) if options.config_file else None, overrides)
    register_entries(cfg.DATASETS.CUSTOM)
    names = [*(options.datasets or ()), *([mini_world_name("test", options.mini)] if options.mini else [])]
    if not names:
        raise ValueError("no data set to measure on; name some with --datasets, or draw scenes with --mini 64")
    pairs = open_pairs(cfg, names)
    model = load_model(options)
    results = []
    for data in pairs:
        num_classes = len(data.spec.vocabulary)
        num_kept = options.num_kept or (model.num_kept or num_classes, num_classes)
        results += analysis.measure_attention_share(model, data, num_kept)
    print("Attention that the classes in the image pay to others, by the number of classes kept, in percent:")
    print(analysis.share_table(results))
    print(
        "(present : redundant: how many times as much one gets as the other; bounds: what the logits' spread Δ allows)"
    )
    analysis.save_attention_share(results, options.output / "attention_share.json")
    save_figure(analysis.draw_attention_share(results), options.output / "attention_share.png")
    if not (options.model or options.weights or cfg.MODEL.WEIGHTS) and options.config_file:
        print(NO_WEIGHTS)
    return options.output


def draw_grid(options: argparse.Namespace) -> Path:
    """Fig. 8 to 10."""
    from err_seg.commands.models import load_options
    from err_seg.data import load_vocabulary
    from err_seg.data.images import read_image
    from err_seg.jobs.label_set import split_names
    from err_seg.lab.analysis.image_grid import image_grid, predict_column
    from err_seg.models import hub
    from err_seg.text.prompts import check_vocabulary
    from err_seg.visualization.grid import CELL

    cell = options.cell or CELL
    if not options.classes:
        raise ValueError("no words; give one or more lists with --classes or --classes-file")
    images = [read_image(path) for path in options.images]
    columns = [] if options.truth is None else [truth_column(options, images)]
    lists = [
        check_vocabulary(load_vocabulary(text) if is_file else split_names(text)) for is_file, text in options.classes
    ]
    names = options.model or [DEFAULT_MODEL]
    for name in names:
        model = hub.load(name, **load_options(options))
        title = Path(name).name if len(names) > 1 else ""
        for words in lists:
            columns.append(predict_column(model, images, words, num_kept=options.num_kept, title=title, cell=cell))
    return save(image_grid(images, columns, cell), options)


def truth_column(options: argparse.Namespace, images: Sequence) -> "Column":
    """Read the column of label maps, each as large as its image."""
    from err_seg.data import load_vocabulary
    from err_seg.data.images import read_label
    from err_seg.lab.analysis.image_grid import Column

    if options.truth_classes is None:
        raise ValueError("--truth needs --truth-classes, the file of the label maps' class names")
    if len(options.truth) != len(images):
        raise ValueError(f"--truth names {len(options.truth)} label maps for {len(images)} images; give one each")
    labels = [read_label(path) for path in options.truth]
    for path, image, label in zip(options.truth, images, labels, strict=True):
        if label.shape != image.shape[:2]:
            raise ValueError(f"{path}: the label map is {label.shape} (H, W), its image {image.shape[:2]}")
    return Column(load_vocabulary(options.truth_classes), labels, "ground truth", lists_names=False)


def save(image: "Image.Image", options: argparse.Namespace) -> Path:
    """Write an image as PNG, with 256 colours where a small file matters more than every shade; returns its path."""
    from err_seg.utils.images import save_image

    save_image(image.quantize(256, kmeans=1) if options.palette else image, options.output, "PNG", optimize=True)
    return options.output


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = command_parser("figures", __doc__)
    commands = parser.add_subparsers(required=True, metavar="attention | attention-share | grid")
    _add_attention(commands.add_parser("attention", allow_abbrev=False))
    _add_attention_share(commands.add_parser("attention-share", allow_abbrev=False))
    _add_grid(commands.add_parser("grid", allow_abbrev=False))
    parser.epilog = "\n".join(command.format_usage() for command in commands.choices.values())
    return parser.parse_args(arguments)


def _add_attention(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=draw_attention)
    parser.add_argument("image", metavar="IMAGE")
    add_words_options(parser)
    parser.add_argument("--class", dest="class_name", metavar="NAME", help="(the one predicted at the point)")
    parser.add_argument("--point", type=int, nargs=2, metavar=("X", "Y"), help="in pixels (the middle)")
    parser.add_argument("--num-kept", type=positive, metavar="K", help="what to compare all classes with (the model's)")
    parser.add_argument("--labels", metavar="FILE", help="label map with indices of the words: which ones are present")
    _add_output_file(parser, "attention.png")
    add_model_options(parser)


def _add_attention_share(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=measure_shares)
    parser.add_argument("--datasets", nargs="+", metavar="NAME", help="registered data sets")
    parser.add_argument("--mini", type=positive, metavar="N", help="draw N test scenes of the miniature world, too")
    parser.add_argument("--root", metavar="DIR", help="the data sets' root (DATASETS.ROOT)")
    parser.add_argument("--num-kept", type=positive, nargs="+", metavar="K", help="(the model's own, and all)")
    parser.add_argument("--output", type=Path, default=OUTPUT, metavar="DIR", help="(%(default)s)")
    add_model_options(parser)


def _add_grid(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=draw_grid)
    parser.add_argument("images", nargs="+", metavar="IMAGE")
    words = parser.add_argument_group("columns, in the order given")
    words.add_argument(
        "--classes",
        action="append",
        type=lambda text: (False, text),
        metavar="NAMES",
        help='"dog, grass"; several times: several columns',
    )
    words.add_argument(
        "--classes-file",
        action="append",
        dest="classes",
        type=lambda text: (True, text),
        metavar="FILE",
        help=".txt (a class a line), .json, or ade20k_150, ...; several times, too",
    )
    words.add_argument("--truth", nargs="+", metavar="FILE", help="a column of label maps, one an image")
    words.add_argument("--truth-classes", metavar="FILE", help="their class names, as for --classes-file")
    parser.add_argument("--num-kept", type=positive, metavar="K", help="(the model's own)")
    parser.add_argument("--cell", type=positive, metavar="PIXELS", help="width of a column")
    _add_output_file(parser, "grid.png")
    add_model_options(parser, several=True)


def _add_output_file(parser: argparse.ArgumentParser, name: str) -> None:
    parser.add_argument("--output", type=Path, default=OUTPUT / name, metavar="FILE", help="a PNG file (%(default)s)")
    parser.add_argument("--palette", action="store_true", help="write 256 colours, less than half the bytes")


@reporting_errors(1)
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command."""
    options = parse_arguments(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    print(f"Written to {options.run(options)}")
    return 0
