"""Check a model on this machine: what to run first with new weights, and what to put in a report of a defect.

    err-seg check err-seg-b photo.jpg --classes "cat, sofa, wall"
    err-seg check mini --output report.txt

Prints one page: the file, how its entries were mapped, whether text and image tower belong together, the fingerprint of
every part on a synthetic image, versions, speed and memory. Writes one overlay. --classes are what the photo shows.

Exit status: 0 all in order; 1 something is not; 2 the model or the photo cannot be used.
"""

import argparse
import platform
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from err_seg.commands.options import add_model_options, command_parser, reporting_errors
from err_seg.version import __version__

if TYPE_CHECKING:
    from err_seg.models.check import Photo
    from err_seg.models.checkpoint import Checkpoint
    from err_seg.prediction.model import ERRSeg

PROBLEM = "PROBLEM: "


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = command_parser("check", __doc__)
    add_model_options(parser, positional=True)
    parser.add_argument("photo", nargs="?", metavar="PHOTO", help="a real photo, with --classes")
    parser.add_argument("--classes", metavar="NAMES", help='what the photo shows: "cat, dog, grass"')
    parser.add_argument("--output", type=Path, metavar="FILE", help="save the page as well, and the overlay beside it")
    arguments = parser.parse_args(argv)
    if (arguments.photo is None) != (arguments.classes is None):
        parser.error("a photo and --classes, what it shows, belong together")
    if arguments.output and arguments.output.suffix == ".png":
        parser.error(f"{arguments.output} is the page, a text; the overlay gets its name with .png")
    if arguments.output and arguments.output.is_dir():
        parser.error(f"{arguments.output} is a folder; name a file in it")
    return arguments


@reporting_errors(2)
def main(argv: Sequence[str] | None = None) -> int:
    """Load, check, print the page and write the overlay."""
    arguments = parse_arguments(argv)
    from err_seg.commands.models import load_options
    from err_seg.data.images import read_image
    from err_seg.jobs.label_set import split_names
    from err_seg.models import hub
    from err_seg.models.build import build_compiled
    from err_seg.models.check import Photo
    from err_seg.utils.files import write_text

    overlay = (arguments.output or Path("output/check")).with_suffix(".png")
    photo = None
    if arguments.photo is not None:
        photo = Photo(read_image(arguments.photo), split_names(arguments.classes), arguments.photo)
    cfg, weights = hub.read(arguments.model, **load_options(arguments))
    model = build_compiled(cfg, weights)
    lines = [*about_file(model, weights), "", *about_network(model, photo, overlay), "", *about_machine(model)]
    failed = sum(line.startswith(PROBLEM) for line in lines)
    lines += ["", f"{failed} problem{'s' * (failed > 1)}" if failed else "all in order"]
    if arguments.output:
        write_text(arguments.output, "\n".join(lines) + "\n")
    print("\n".join(lines))
    return 1 if failed else 0


def about_file(model: "ERRSeg", weights: "Checkpoint") -> Iterator[str]:
    """Say which file it is, and under which names its entries were taken."""
    from err_seg.models.check import renaming_rules
    from err_seg.models.checkpoint_names import current_name

    source = weights.source
    yield f"file        {source.file}"
    if source.repository:
        yield f"from        {source.repository} at {source.revision}"
    yield f"SHA-256     {source.sha256}"
    yield f"network     {model.settings.get('MODEL.CLIP.NAME')}, S = {model.size}, K = {model.num_kept}"
    yield f"weights     {len(model.state_dict())} tensors, none missing, none left over"
    for before, after, number in renaming_rules({name: current_name(name) for name in weights.entries}):
        yield f"  {number:5} {before}.*" + ("" if before == after else f" -> {after}.*")
    if weights.others:
        yield f"not used    {', '.join(sorted(weights.others))}"


def about_network(model: "ERRSeg", photo: "Photo | None", overlay: Path) -> Iterator[str]:
    """Say what the parts compute, whether the towers belong together, and what a prediction costs; write an overlay."""
    from err_seg.models import check
    from err_seg.utils.images import save_image
    from err_seg.visualization.overlay import overlay as draw

    yield f"fingerprints on the synthetic image, {model.precision} (root mean square, mean; the last digit may differ)"
    parts = check.fingerprints(model)
    yield from (f"  {part:18} {text}" for part, text in parts.items())
    if broken := [part for part, text in parts.items() if "nan" in text or "inf" in text]:
        yield from (f"{PROBLEM}{part} is not finite" for part in broken)
        return
    doubt = ", or the photo does not show what --classes says" if photo else ""
    photo = photo or check.packaged_photo(model)
    if photo is None:
        yield "towers      not checked: this needs a photo and --classes, what it shows"
        photo = check.Photo(check.synthetic_image(model.size), check.trained_words(model)[: check.WORDS], "synthetic")
    else:
        rank = check.own_words_rank(model, photo)
        yield f"towers      on {photo.origin}, its words rank above random ones in {rank:.0%} of pairs (chance: 50%)"
        if rank < check.RANKED_ABOVE:
            expected = f"at least {check.RANKED_ABOVE:.0%} was expected"
            yield f"{PROBLEM}{expected}: text and image tower do not belong together{doubt}"
    result, seconds, memory = check.measure_cost(model, photo)
    save_image(draw(photo.image, result.labels.cpu().numpy(), photo.classes), overlay)
    size = "×".join(map(str, photo.image.shape[1::-1]))
    given = f"{size} pixels and {len(photo.classes)} words"
    yield f"speed       {seconds:.2f} s for {given}, the fastest of {check.RUNS}"
    kind = "at most" if model.device.type == "cuda" else "of the process"
    yield f"memory      {memory / 2**20:,.0f} MiB {kind}"
    yield f"overlay     {overlay}"


def about_machine(model: "ERRSeg") -> Iterator[str]:
    """List versions and the machine."""
    import os

    import torch

    from err_seg.engine.run_setup import PACKAGES, version_of

    device = f"{model.device}, {torch.get_num_threads()} threads"
    if model.device.type == "cuda":
        device = torch.cuda.get_device_name(model.device)
    load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    yield f"err_seg     {__version__}, Python {platform.python_version()}, {platform.platform()}"
    yield f"device      {device}{load}"
    yield f"packages    {', '.join(f'{name} {version_of(name)}' for name in PACKAGES)}"
