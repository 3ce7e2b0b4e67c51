"""Write the network to a file that runs without this package: ONNX (.onnx), torch.export or compiled (.pt2).

    err-seg export err_seg.onnx --model err-seg-b --classes "cat, sofa, wall"
    err-seg export err_seg.pt2 --weights model_final.safetensors
    err-seg export err_seg.pt2 --model err-seg-b --compiled
    python examples/run_exported.py err_seg.onnx err_seg.npz photo.jpg

Image size, vocabulary and K are inputs of the file. The words are written as text embeddings to a file beside it
(.npz). For other words run the command again with other --classes: the network's file stays as it is if it has the same
weights. The file is compared with the network. With --precision fp16, convolutions and matrix products of an ONNX file
compute in fp16, and the file is about half as large: for GPUs, since most processors compute in fp32 all the same. With
--compiled, AOTInductor compiles a .pt2 file for this kind of processor (or of GPU: --device cuda) by a C++ compiler.

Exit status: 0 written and equal to the network; 1 not equal; 2 wrong options, nothing written.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from err_seg.commands.options import add_model_options, command_parser, complain, reporting_errors

ENDINGS = {".onnx": ("fp32", "fp16"), ".pt2": ("fp32",)}  # and the precisions of such files


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = command_parser("export", __doc__)
    add = parser.add_argument
    add("file", type=Path, metavar="FILE", help="what to write: FILE.onnx or FILE.pt2")
    add("--classes", metavar="NAMES", help='also write FILE.npz with the embeddings of "cat, sofa, wall"')
    add("--contrast", metavar="NAMES", help='what competes with these: "common", names, a vocabulary or a file (none)')
    add("--compiled", action="store_true", help="compile FILE.pt2 for the device (cpu, unless --device names another)")
    add("--force", action="store_true", help="replace the network's file if it exists")
    add_model_options(parser)
    arguments = parser.parse_args(argv)
    if arguments.file.suffix not in ENDINGS:
        parser.error(f"{arguments.file}: the ending must be one of {', '.join(ENDINGS)}")
    if arguments.contrast and arguments.classes is None:
        parser.error("--contrast competes with classes: it needs --classes")
    if arguments.compiled and arguments.file.suffix != ".pt2":
        parser.error(f"--compiled writes .pt2 files, and {arguments.file} is none")
    arguments.precision = "fp32" if arguments.precision in (None, "auto") else arguments.precision
    if arguments.precision not in ENDINGS[arguments.file.suffix]:
        written = " or ".join(ENDINGS[arguments.file.suffix])
        parser.error(f"--precision {arguments.precision}: {arguments.file.suffix} files are written in {written}")
    return arguments


@reporting_errors(2)
def main(argv: Sequence[str] | None = None) -> int:
    """Export, compare, and write the vocabulary."""
    arguments = parse_arguments(argv)
    from err_seg import export
    from err_seg.commands.models import load_model, read_contrast
    from err_seg.jobs import split_names

    precision = arguments.precision
    arguments.device = (arguments.device if arguments.compiled else None) or "cpu"
    arguments.precision = None  # the network itself stays in fp32
    model = load_model(arguments)
    is_there = arguments.file.exists() and not arguments.force
    if is_there:
        export.check_facts(model, arguments.file, precision, model.device.type if arguments.compiled else "none")
    if arguments.classes is not None:
        names, vocabulary = split_names(arguments.classes), arguments.file.with_suffix(".npz")
        contrast = export.save_vocabulary(model, names, vocabulary, read_contrast(arguments.contrast) or "none")
        print(f"{vocabulary}: {len(names)} classes, {contrast}")
    if is_there:
        print(f"{arguments.file} exists already; --force replaces it")
        return 0
    if arguments.file.suffix == ".onnx":
        export.export_onnx(model, arguments.file, precision)
        parity = export.check_onnx(model, arguments.file, precision)
    else:
        export.export_program(model, arguments.file, compiled=arguments.compiled)
        parity = export.check_program(model, arguments.file, compiled=arguments.compiled)
    size = arguments.file.stat().st_size / 1e6
    print(
        f"{arguments.file}: {size:.1f} MB; compared in {parity.cases} cases: probabilities differ by at most "
        f"{parity.largest_difference:.1e}, the same classes were kept in {parity.same_kept}; it takes "
        f"{parity.time_ratio:.2f} of the network's time on this processor"
    )
    if not parity.holds:
        return complain("the file's results differ from the network's; do not use it", 1)
    return 0
