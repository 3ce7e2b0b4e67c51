"""Write the network to a file that runs without this package: ONNX (.onnx) or torch.export (.pt2).

    err-seg export err_seg.onnx --model err-seg-b --classes "cat, sofa, wall"
    err-seg export err_seg.pt2 --weights model_final.safetensors
    python examples/run_exported.py err_seg.onnx err_seg.npz photo.jpg

Image size, vocabulary and K are inputs of the file. The words are written as text embeddings to a file beside it
(.npz). For other words run the command again with other --classes: the network's file stays as it is if it has the same
weights. The file is compared with the network.

Exit status: 0 written and equal to the network; 1 not equal; 2 wrong options, nothing written.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from err_seg.commands.options import add_model_options, command_parser

ENDINGS = (".onnx", ".pt2")


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = command_parser("export", __doc__)
    parser.add_argument("file", type=Path, metavar="FILE", help="what to write: FILE.onnx or FILE.pt2")
    parser.add_argument(
        "--classes", metavar="NAMES", help='also write FILE.npz with the embeddings of "cat, sofa, wall"'
    )
    parser.add_argument("--force", action="store_true", help="replace the network's file if it exists")
    add_model_options(parser)
    arguments = parser.parse_args(argv)
    if arguments.precision not in (None, "auto", "fp32"):
        parser.error(f"--precision {arguments.precision}: exported files compute in fp32")
    if arguments.file.suffix not in ENDINGS:
        parser.error(f"{arguments.file}: the ending must be one of {', '.join(ENDINGS)}")
    return arguments


def main(argv: Sequence[str] | None = None) -> int:
    """Export, compare, and write the vocabulary."""
    arguments = parse_arguments(argv)
    from err_seg import export
    from err_seg.commands.models import load_model
    from err_seg.inference import split_names

    if arguments.file.suffix == ".onnx":
        write, check = export.export_onnx, export.check_onnx
    else:
        write, check = export.export_program, export.check_program
    try:
        arguments.device = "cpu"
        model = load_model(arguments)
        is_there = arguments.file.exists() and not arguments.force
        if is_there:
            export.check_facts(model, arguments.file)
        if arguments.classes is not None:
            names, vocabulary = split_names(arguments.classes), arguments.file.with_suffix(".npz")
            export.save_vocabulary(model, names, vocabulary)
            print(f"{vocabulary}: {len(names)} classes")
        if is_there:
            print(f"{arguments.file} exists already; --force replaces it")
            return 0
        write(model, arguments.file)
        parity = check(model, arguments.file)
    except (ValueError, OSError, export.ExportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    size = arguments.file.stat().st_size / 1e6
    print(
        f"{arguments.file}: {size:.1f} MB; compared in {parity.cases} cases: probabilities differ by at most "
        f"{parity.largest_difference:.1e}, the same classes were kept in {parity.same_kept}; it takes "
        f"{parity.time_ratio:.2f} of the network's time on this processor"
    )
    if not parity.holds:
        print("error: the file's results differ from the network's; do not use it", file=sys.stderr)
        return 1
    return 0
