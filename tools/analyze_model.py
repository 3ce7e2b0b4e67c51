#!/usr/bin/env python
"""Count the parameters and multiply-adds of a configured network; nothing is computed, so it takes a second.

python tools/analyze_model.py --config-file configs/err_seg_convnext_b.yaml --num-classes 150 --num-kept 32
"""

import argparse
import sys

import torch
from rich.console import Console
from rich.table import Table

import err_seg
from err_seg.modeling.cost import network_cost


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config-file", required=True, metavar="FILE", help="a YAML file of configs/")
    parser.add_argument("--num-classes", type=int, default=150, metavar="T", help="size of the vocabulary (150)")
    parser.add_argument("--num-kept", type=int, metavar="K", help="classes kept; default: the configuration's")
    parser.add_argument("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="overrides of the configuration")
    arguments = parser.parse_args()
    try:
        cfg = err_seg.get_cfg(arguments.config_file, arguments.opts)
        cfg.MODEL.DEVICE, cfg.MODEL.WEIGHTS, cfg.MODEL.CLIP.PRETRAINED = "meta", "", ""
        with torch.device("meta"):
            model = err_seg.build_model(cfg)
        kept = arguments.num_kept or model.num_kept
        cost = network_cost(model, num_classes=arguments.num_classes, num_kept=kept, size=cfg.INPUT.SIZE)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1

    title = f"{cfg.MODEL.CLIP.NAME}, S = {cfg.INPUT.SIZE}, T = {arguments.num_classes}, K = {kept or 'T'}"
    table = Table("part", title=title)
    table.add_column("GMAC", justify="right")
    for name, macs in cost.macs.items():
        table.add_row(name, f"{macs / 1e9:.1f}")
    total = sum(cost.macs.values())
    table.add_section()
    table.add_row("a picture, as computed here", f"{total / 1e9:.1f}")
    table.add_row(
        "with the guidance projected anew for every class", f"{(total + cost.repeated_guidance_macs) / 1e9:.1f}"
    )
    console = Console()
    console.print(table)
    console.print(
        f"parameters: {cost.parameters / 1e6:.2f} M, of which {cost.outside_clip / 1e6:.2f} M outside CLIP; "
        f"{cost.trainable / 1e6:.2f} M train",
        highlight=False,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
