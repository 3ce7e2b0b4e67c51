#!/usr/bin/env python
"""Measure what the paper's Tables I, IV and XIII rest on, for any data sets and any CLIP.

    python tools/analyze_data.py classes --datasets ade20k_150_val pascal_voc_20_val
    python tools/analyze_data.py recall --datasets ade20k_150_val --config-file configs/err_seg_convnext_b.yaml \\
        --opts MODEL.WEIGHTS model_final.pth
    python tools/analyze_data.py vocabularies --config-file configs/err_seg_convnext_b.yaml

classes: how many classes a picture shows, and how much of the vocabulary it does not need (Table I). recall: which
share of them is among the K classes that CRM keeps. vocabularies: how similar classes are to those of training
(Table IV). Each prints a table and writes the figures and a picture to --output. Data sets of your own are declared
under DATASETS.CUSTOM of --config-file.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from fvcore.common.config import CfgNode

from err_seg import build_model, get_cfg
from err_seg.analysis import (
    build_embedder,
    class_counts_table,
    count_classes,
    measure_class_recall,
    nearest_classes,
    recall_table,
    similarity_table,
)
from err_seg.analysis.class_recall import DEFAULT_NUM_KEPT, save_class_recall
from err_seg.analysis.classes_per_picture import PAPER as PAPER_DATASETS
from err_seg.analysis.classes_per_picture import save_class_counts
from err_seg.analysis.figures import draw_class_counts, draw_class_recall, draw_similarities, save_figure
from err_seg.analysis.vocabulary_similarity import DEFAULT_THRESHOLDS, save_similarities
from err_seg.analysis.vocabulary_similarity import PAPER as PAPER_VOCABULARIES
from err_seg.data import SegmentationPairs, get_dataset, register_entries
from err_seg.data.preparation.parallel import default_workers
from err_seg.data.preparation.sources import PreparationError

NO_CLIP_WEIGHTS = (
    "These figures mean nothing{}: CLIP has random weights. Set MODEL.CLIP.PRETRAINED (a tag of open_clip or a file) "
    "or MODEL.WEIGHTS."
)


def analyze_classes(options: argparse.Namespace, cfg: CfgNode) -> None:
    """Table I."""
    pairs = [SegmentationPairs(get_dataset(name), cfg.DATASETS.ROOT) for name in options.datasets or PAPER_DATASETS]
    results = [count_classes(data, options.workers) for data in pairs]
    print(class_counts_table(results))
    save_class_counts(results, options.output / "classes_per_picture.json")
    save_figure(draw_class_counts(results), options.output / "classes_per_picture.png")


def analyze_recall(options: argparse.Namespace, cfg: CfgNode) -> None:
    """Recall of CRM."""
    names = options.datasets or cfg.DATASETS.TEST
    pairs = [SegmentationPairs(get_dataset(name), cfg.DATASETS.ROOT) for name in names]
    model = build_model(cfg)
    results = [measure_class_recall(cfg, model, data) for data in pairs]
    print("Share of the classes present, and of the labelled pixels, that are among the K kept, in percent:")
    print(recall_table(results, options.num_kept))
    save_class_recall(results, options.output / "class_recall.json")
    save_figure(draw_class_recall(results), options.output / "class_recall.png")
    _warn_of_random_weights(cfg)


def analyze_vocabularies(options: argparse.Namespace, cfg: CfgNode) -> None:
    """Table IV."""
    results = nearest_classes(build_embedder(cfg), options.vocabularies, options.train)
    print(f"Share of the classes whose nearest class in {options.train} has a similarity of")
    print(similarity_table(results, options.thresholds))
    print("(same: 1 up to rounding, an equal prompt; paper: 1 and two thresholds that are not known)")
    listing = options.output / "vocabularies.json"
    save_similarities(results, listing, listing.with_suffix(".csv"))
    save_figure(draw_similarities(results, options.thresholds), options.output / "vocabularies.png")
    _warn_of_random_weights(cfg, " but for the equal prompts (same)")


def _warn_of_random_weights(cfg: CfgNode, exception: str = "") -> None:
    if not (cfg.MODEL.CLIP.PRETRAINED or cfg.MODEL.WEIGHTS):
        print(NO_CLIP_WEIGHTS.format(exception))


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw, allow_abbrev=False)
    commands = parser.add_subparsers(required=True, metavar="classes | recall | vocabularies")
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--output", type=Path, default=Path("output/analysis"), metavar="DIR", help="(%(default)s)")
    shared.add_argument("--config-file", metavar="FILE", help="a YAML file of configs/ (default: err_seg/defaults.py)")
    shared.add_argument("--opts", nargs=argparse.REMAINDER, default=[], metavar="KEY VALUE", help="overrides, last")
    data = argparse.ArgumentParser(add_help=False)
    data.add_argument("--datasets", nargs="+", metavar="NAME", help="registered data sets (default: the paper's)")
    data.add_argument("--root", metavar="DIR", help="the data sets' root (default: DATASETS.ROOT)")

    classes = commands.add_parser("classes", parents=[data, shared], allow_abbrev=False)
    classes.set_defaults(run=analyze_classes)
    classes.add_argument("--workers", type=_positive, default=default_workers(), metavar="N", help="(%(default)s)")

    recall = commands.add_parser("recall", parents=[data, shared], allow_abbrev=False)
    recall.set_defaults(run=analyze_recall)
    several = f"({' '.join(map(str, DEFAULT_NUM_KEPT))})"
    recall.add_argument("--num-kept", type=_positive, nargs="+", default=DEFAULT_NUM_KEPT, metavar="K", help=several)

    words = commands.add_parser("vocabularies", parents=[shared], allow_abbrev=False)
    words.set_defaults(run=analyze_vocabularies, root=None)
    known = "vocabularies, data sets, or .json or .txt files (default: the paper's)"
    words.add_argument("--vocabularies", nargs="+", default=list(PAPER_VOCABULARIES), metavar="NAME", help=known)
    words.add_argument("--train", default="coco_stuff", metavar="NAME", help="what to compare with (%(default)s)")
    two = f"({' '.join(map(str, DEFAULT_THRESHOLDS))})"
    words.add_argument("--thresholds", type=float, nargs="+", default=DEFAULT_THRESHOLDS, metavar="X", help=two)
    return parser.parse_args(arguments)


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected at least 1, found {text}")
    return number


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command."""
    options = parse_arguments(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    try:
        overrides = [*(("DATASETS.ROOT", options.root) if options.root else ()), *options.opts]
        cfg = get_cfg(options.config_file, overrides)
        register_entries(cfg.DATASETS.CUSTOM)
        options.run(options, cfg)
    except (ValueError, OSError, PreparationError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"Written to {options.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
