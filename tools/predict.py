#!/usr/bin/env python
"""Label every pixel of your own pictures with your own words.

    python tools/predict.py photo.jpg --classes "cat, sofa, wall" --config-file configs/err_seg_convnext_b.yaml \\
        --weights model_final.pth --output output/predictions

Writes an overlay with legend for each picture and prints each class's share of the area.
"""

import argparse
import sys
from pathlib import Path

import err_seg
from err_seg.data import load_vocabulary, read_image
from err_seg.files import atomic_write
from err_seg.visualize import area_shares, overlay


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pictures", nargs="+", type=Path, metavar="PICTURE", help="picture files")
    words = parser.add_mutually_exclusive_group(required=True)
    words.add_argument("--classes", metavar="NAMES", help='class names with commas between: "cat, dog, grass"')
    words.add_argument(
        "--classes-file", metavar="FILE", help="a .txt (a class a line) or .json file, or ade20k_150, ..."
    )
    parser.add_argument("--config-file", default="configs/err_seg_convnext_b.yaml", metavar="FILE")
    parser.add_argument("--weights", default="", metavar="FILE", help="our own or a released checkpoint")
    parser.add_argument("--num-kept", type=int, metavar="K", help="how many of the classes a picture may show")
    parser.add_argument("--output", type=Path, default=Path("output/predictions"), metavar="DIR")
    parser.add_argument("--opts", nargs=argparse.REMAINDER, default=[], metavar="KEY VALUE", help="overrides")
    return parser.parse_args()


def main() -> int:
    """Predict, write the overlays, and say what failed."""
    arguments = parse_arguments()
    try:
        overrides = [*arguments.opts, *(["MODEL.WEIGHTS", arguments.weights] if arguments.weights else [])]
        cfg = err_seg.get_cfg(arguments.config_file, overrides)
        if arguments.classes is not None:
            vocabulary = tuple(name.strip() for name in arguments.classes.split(",") if name.strip())
        else:
            vocabulary = load_vocabulary(arguments.classes_file)
        model = err_seg.build_model(cfg)
        model.embed_vocabulary(vocabulary)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2

    failed = 0
    for path in arguments.pictures:
        try:
            picture = read_image(path)
            result = model.predict([picture], vocabulary, num_kept=arguments.num_kept)[0]
            labels = result.labels.cpu().numpy()
            target = arguments.output / f"{path.stem}_overlay.png"
            with atomic_write(target) as temporary:
                overlay(picture, labels, vocabulary).save(temporary, format="PNG")
        except (ValueError, OSError) as error:
            print(f"error: {error}", file=sys.stderr)
            failed += 1
            continue
        shares = ", ".join(f"{vocabulary[i]} {share:.1%}" for i, share in area_shares(labels, len(vocabulary))[:8])
        print(f"{path}: {shares} -> {target}")
    if not (cfg.MODEL.WEIGHTS or cfg.MODEL.CLIP.PRETRAINED):
        print("These labels mean nothing: the model has random weights. Name a checkpoint with --weights.")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
