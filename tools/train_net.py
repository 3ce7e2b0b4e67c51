#!/usr/bin/env python
"""Train ERR-Seg and evaluate it.

    python tools/train_net.py --config-file configs/err_seg_convnext_b.yaml
    python tools/train_net.py --config-file configs/err_seg_convnext_b.yaml --eval-only MODEL.WEIGHTS model_final.pth

Everything else is configuration: err_seg/config.py lists every key, and KEY VALUE pairs override the file's.
"""

import argparse
import logging
import sys
from pathlib import Path

import err_seg
from err_seg.data import register, spec_from_dict
from err_seg.engine import TrainingError, evaluate, train
from err_seg.evaluation import copypaste_lines, summary_table

NO_CLIP_WEIGHTS = (
    "These figures mean nothing: CLIP started from random weights. Set MODEL.CLIP.PRETRAINED (a tag of open_clip or a "
    "file) or MODEL.WEIGHTS."
)


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--config-file", required=True, metavar="FILE", help="a YAML file of configs/")
    parser.add_argument("--eval-only", action="store_true", help="evaluate MODEL.WEIGHTS without training")
    parser.add_argument("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="overrides of the configuration")
    return parser.parse_args()


def main() -> int:
    """Train unless told otherwise, evaluate, and print the table."""
    arguments = parse_arguments()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s")
    try:
        cfg = err_seg.get_cfg(arguments.config_file, arguments.opts)
        for entry in cfg.DATASETS.CUSTOM:
            register(spec_from_dict(entry))
        model = err_seg.build_model(cfg)
        if not arguments.eval_only:
            train(cfg, model)
        results = evaluate(cfg, model)
    except (ValueError, OSError, TrainingError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(summary_table(results))
    print("\n".join(copypaste_lines(results)))
    print(f"Written to {Path(cfg.OUTPUT_DIR) / 'results.json'}")
    if not (cfg.MODEL.CLIP.PRETRAINED or cfg.MODEL.WEIGHTS):
        print(NO_CLIP_WEIGHTS)
    return 0


if __name__ == "__main__":
    sys.exit(main())
