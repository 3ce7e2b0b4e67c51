"""Compare evaluations: settings that differ, metrics with 95 % intervals, and the classes that changed most.

    err-seg compare output/base output/longer
    err-seg compare output/base output/longer output/large --output comparison.tex
    err-seg compare output/base

RUN is the output folder of err-seg evaluate or train, or its results.json. All are compared with the first, on the
benchmarks that all were evaluated on; one run alone is shown with its intervals and classes. Intervals come from a
bootstrap over the images, whose counts every evaluation keeps.
"""

from collections.abc import Sequence
from pathlib import Path

from err_seg.commands.options import command_parser, positive, reporting_errors


@reporting_errors(1)
def main(arguments: Sequence[str] | None = None) -> None:
    """Print the tables, and write them to a file."""
    parser = command_parser("compare", __doc__)
    add = parser.add_argument
    add("runs", nargs="+", type=Path, metavar="RUN", help="an evaluation's output folder")
    add("--classes", type=positive, default=10, metavar="N", help="how many changed classes are listed (%(default)s)")
    add("--per-class", action="store_true", help="list all classes instead")
    add("--resamples", type=positive, default=1000, metavar="N", help="of the bootstrap (%(default)s)")
    add("--seed", type=int, default=0, metavar="S", help="of the bootstrap (%(default)s)")
    add("--output", type=Path, metavar="FILE", help="also write Markdown (.md) or LaTeX (.tex)")
    options = parser.parse_args(arguments)
    if options.output and options.output.suffix not in (".md", ".tex"):
        raise ValueError(f"--output {options.output}: expected a .md or .tex file")
    from err_seg.lab.comparison import EvaluatedRun, compare
    from err_seg.utils.files import write_text

    runs = [EvaluatedRun.read(path) for path in options.runs]
    classes = None if options.per_class else options.classes
    tables = compare(runs, classes=classes, resamples=options.resamples, seed=options.seed)
    text = "\n\n".join(table.as_markdown() for table in tables)
    print(text)
    if options.output:
        is_latex = options.output.suffix == ".tex"
        write_text(options.output, ("\n\n".join(table.as_latex() for table in tables) if is_latex else text) + "\n")
        print(f"\nWritten to {options.output}")
