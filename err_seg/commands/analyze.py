"""Measure what the paper's Tables I, III, IV and XIII are based on, for any network, data sets and CLIP.

    err-seg analyze model --config-file configs/err_seg_convnext_b.yaml --num-classes 150 --num-kept 32
    err-seg analyze classes --datasets ade20k_150_val pascal_voc_20_val
    err-seg analyze recall --datasets ade20k_150_val --config-file configs/err_seg_convnext_b.yaml \\
        --opts MODEL.WEIGHTS model_final.pth
    err-seg analyze vocabularies --config-file configs/err_seg_convnext_b.yaml
    err-seg analyze precision --config-file configs/mini/err_seg.yaml --opts MODEL.WEIGHTS model_final.safetensors

model: parameters and multiply-adds (Table III), counted in a second without computing anything. classes: how many
classes an image shows, and how much of the vocabulary it does not need (Table I). recall: the share of these classes
that is among the K that CRM keeps. vocabularies: how similar classes are to those of training (Table IV). These
three print a table and write its numbers and a plot to --output. precision: what bf16 and fp16 change in results, a
table and its numbers. Declare data sets of your own under DATASETS.CUSTOM in
--config-file.
"""

import argparse
import logging
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from err_seg.commands.options import command_parser, positive, reporting_errors
from err_seg.config import Config, get_cfg
from err_seg.config.constants import SET_CLIP_WEIGHTS


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = command_parser("analyze", __doc__)
    kinds = parser.add_subparsers(required=True, metavar="model | classes | recall | vocabularies | precision")
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--output", type=Path, default=Path("output/analysis"), metavar="DIR", help="(%(default)s)")
    files = "a YAML file of configs/ (default: err_seg/config/defaults.py)"
    shared.add_argument("--config-file", metavar="FILE", help=files)
    shared.add_argument("--opts", nargs="*", default=[], metavar="KEY VALUE", help="overrides, last")
    data = argparse.ArgumentParser(add_help=False)
    data.add_argument("--datasets", nargs="+", metavar="NAME", help="registered data sets (the paper's)")
    data.add_argument("--root", metavar="DIR", help="the data sets' root (DATASETS.ROOT)")

    model = kinds.add_parser("model", allow_abbrev=False)
    model.set_defaults(run=analyze_model, root=None, output=None)
    model.add_argument("--num-classes", type=positive, default=150, metavar="T", help="size of the vocabulary (150)")
    model.add_argument("--num-kept", type=positive, metavar="K", help="classes kept (the configuration's)")
    model.add_argument("--config-file", required=True, metavar="FILE", help="a YAML file, or a shipped name")
    model.add_argument("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="overrides of the configuration")

    classes = kinds.add_parser("classes", parents=[data, shared], allow_abbrev=False)
    classes.set_defaults(run=analyze_classes)
    classes.add_argument("--workers", type=positive, metavar="N", help="processes (one a core)")

    recall = kinds.add_parser("recall", parents=[data, shared], allow_abbrev=False)
    recall.set_defaults(run=analyze_recall)
    recall.add_argument("--num-kept", type=positive, nargs="+", metavar="K", help="(most of Table XIII's)")

    kinds.add_parser("precision", parents=[data, shared], allow_abbrev=False).set_defaults(run=analyze_precision)

    words = kinds.add_parser("vocabularies", parents=[shared], allow_abbrev=False)
    words.set_defaults(run=analyze_vocabularies, root=None)
    known = "vocabularies, data sets, or .json or .txt files (the paper's)"
    words.add_argument("--vocabularies", nargs="+", metavar="NAME", help=known)
    words.add_argument("--train", default="coco_stuff", metavar="NAME", help="what to compare with (%(default)s)")
    words.add_argument("--thresholds", type=float, nargs="+", metavar="X", help="of similarity")
    parser.epilog = "\n".join(kind.format_usage() for kind in kinds.choices.values())
    return parser.parse_args(arguments)


@reporting_errors(1)
def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command."""
    options = parse_arguments(arguments)
    from err_seg.data import register_entries

    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    overrides = [*(("DATASETS.ROOT", options.root) if options.root else ()), *options.opts]
    cfg = get_cfg(options.config_file, overrides)
    register_entries(cfg.DATASETS.CUSTOM)
    options.run(options, cfg)
    if options.output:
        print(f"Written to {options.output}")


def analyze_model(options: argparse.Namespace, cfg: Config) -> None:
    """Parameters and multiply-adds."""
    from err_seg.evaluation.results import text_table
    from err_seg.lab.benchmarks.machine import network_cost
    from err_seg.models.build import default_num_kept

    kept = options.num_kept or default_num_kept(cfg)
    cost = network_cost(cfg, num_classes=options.num_classes, num_kept=kept)
    total = sum(cost.macs.values())
    sums = {
        "an image, as computed here": total,
        "with the guidance projected for every class": total + cost.repeated_guidance_macs,
    }
    print(f"{cfg.MODEL.CLIP.NAME}, S = {cfg.INPUT.SIZE}, T = {options.num_classes}, K = {kept or 'T'}")
    print(text_table(["part", "GMAC"], [(name, f"{macs / 1e9:.1f}") for name, macs in (cost.macs | sums).items()]))
    print(
        f"parameters: {cost.parameters / 1e6:.2f} M, of which {cost.outside_clip / 1e6:.2f} M outside CLIP; "
        f"{cost.trainable / 1e6:.2f} M train"
    )


def analyze_classes(options: argparse.Namespace, cfg: Config) -> None:
    """Table I."""
    from err_seg.commands.models import open_pairs
    from err_seg.data.preparation.parallel import default_workers
    from err_seg.lab.analysis import classes_per_image as analysis
    from err_seg.visualization.plots import save_figure

    pairs = open_pairs(cfg, options.datasets or analysis.PAPER)
    results = [analysis.count_classes(data, options.workers or default_workers()) for data in pairs]
    print(analysis.class_counts_table(results))
    analysis.save_class_counts(results, options.output / "classes_per_picture.json")
    save_figure(analysis.draw_class_counts(results), options.output / "classes_per_picture.png")


def analyze_recall(options: argparse.Namespace, cfg: Config) -> None:
    """Recall of CRM."""
    from err_seg.commands.models import open_pairs
    from err_seg.lab.analysis import class_recall as analysis
    from err_seg.models.build import build_model
    from err_seg.visualization.plots import save_figure

    pairs, model = open_pairs(cfg, options.datasets or cfg.DATASETS.TEST), build_model(cfg)
    results = [analysis.measure_class_recall(cfg, model, data) for data in pairs]
    print("Share of the classes present, and of the labelled pixels, that are among the K kept, in percent:")
    print(analysis.recall_table(results, options.num_kept or analysis.NUM_KEPT_COLUMNS))
    analysis.save_class_recall(results, options.output / "class_recall.json")
    save_figure(analysis.draw_class_recall(results), options.output / "class_recall.png")
    _warn_of_random_weights(cfg)


def analyze_precision(options: argparse.Namespace, cfg: Config) -> None:
    """Results in bf16 and fp16 beside those in fp32."""
    from err_seg.commands.models import open_pairs
    from err_seg.lab.analysis import precision_error as analysis
    from err_seg.models.build import build_model
    from err_seg.utils.files import write_json

    pairs, model = open_pairs(cfg, options.datasets or cfg.DATASETS.TEST), build_model(cfg)
    results = [row for data in pairs for row in analysis.measure_precision_error(cfg, model, data, ("bf16", "fp16"))]
    print(analysis.precision_table(results))
    print("(errors: of probabilities, over the images that keep the same classes as in fp32)")
    write_json(options.output / "precision.json", [asdict(result) for result in results])
    _warn_of_random_weights(cfg)


def analyze_vocabularies(options: argparse.Namespace, cfg: Config) -> None:
    """Table IV."""
    from err_seg.lab.analysis import vocabulary_similarity as analysis
    from err_seg.visualization.plots import save_figure

    vocabularies = list(options.vocabularies or analysis.PAPER)
    thresholds = options.thresholds or analysis.DEFAULT_THRESHOLDS
    results = analysis.nearest_classes(analysis.build_embedder(cfg), vocabularies, options.train)
    print(f"Share of the classes whose nearest class in {options.train} has a similarity of")
    print(analysis.similarity_table(results, thresholds))
    print("(same: 1 up to rounding, an equal prompt; paper: 1 and two thresholds that are not known)")
    analysis.save_similarities(results, options.output / "vocabularies.json", options.output / "vocabularies.csv")
    save_figure(analysis.draw_similarities(results, thresholds), options.output / "vocabularies.png")
    _warn_of_random_weights(cfg, " but for the equal prompts (same)")


def _warn_of_random_weights(cfg: Config, exception: str = "") -> None:
    if not (cfg.MODEL.CLIP.PRETRAINED or cfg.MODEL.WEIGHTS):
        print(f"These numbers mean nothing{exception}: CLIP has random weights. {SET_CLIP_WEIGHTS}")
