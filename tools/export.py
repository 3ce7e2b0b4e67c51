#!/usr/bin/env python
"""Write the network to a file that runs without this package: ONNX (.onnx) or torch.export (.pt2).

    python tools/export.py err_seg.onnx --model err-seg-b --classes "cat, sofa, wall"
    python examples/run_exported.py err_seg.onnx err_seg.npz photo.jpg

Picture size, vocabulary and K are inputs of the file. Words become text embeddings here, in a file beside it (.npz);
run the command again with other --classes, and the network's file is left as it is, if it is of the same weights. The
file is compared with the network.

Exit status: 0 written and equal; 1 it computes something else; 2 nothing was written, since options are wrong.
"""

import argparse
import sys
from pathlib import Path

from err_seg.inference.cli import add_model_options, load_model

from err_seg.export import (
    ExportError,
    check_facts,
    check_onnx,
    check_program,
    export_onnx,
    export_program,
    save_vocabulary,
)
from err_seg.inference import split_names

WRITERS = {".onnx": (export_onnx, check_onnx), ".pt2": (export_program, check_program)}


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="what to write: FILE.onnx or FILE.pt2")
    parser.add_argument(
        "--classes", metavar="NAMES", help='also write FILE.npz with the embeddings of "cat, sofa, wall"'
    )
    parser.add_argument("--force", action="store_true", help="write the network's file anew if it is there")
    add_model_options(parser)
    return parser.parse_args()


def main() -> int:
    """Export, compare, and write the vocabulary."""
    arguments = parse_arguments()
    if arguments.file.suffix not in WRITERS:
        print(f"error: {arguments.file}: the ending must be one of {', '.join(WRITERS)}", file=sys.stderr)
        return 2
    write, check = WRITERS[arguments.file.suffix]
    try:
        arguments.device = "cpu"
        model = load_model(arguments)
        is_there = arguments.file.exists() and not arguments.force
        if is_there:
            check_facts(model, arguments.file)
        if arguments.classes is not None:
            names, vocabulary = split_names(arguments.classes), arguments.file.with_suffix(".npz")
            save_vocabulary(model, names, vocabulary)
            print(f"{vocabulary}: {len(names)} classes")
        if is_there:
            print(f"{arguments.file} is there already; --force writes it anew")
            return 0
        write(model, arguments.file)
        parity = check(model, arguments.file)
    except (ValueError, OSError, ExportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    size = arguments.file.stat().st_size / 1e6
    print(
        f"{arguments.file}: {size:.1f} MB; compared in {parity.cases} cases: probabilities differ by at most "
        f"{parity.largest_difference:.1e}, the same classes were kept in {parity.same_kept}"
    )
    if not parity.holds:
        print("error: the file computes something else than the network; do not use it", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
