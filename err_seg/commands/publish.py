"""Publish a trained network on the Hugging Face hub: weights, configuration, and a card with its figures.

    err-seg publish output/b user/err-seg-b --dry-run
    err-seg publish output/b user/err-seg-b --license mit --private

OUTPUT_DIR is that of a training. Its results.json, config.yaml and environment.json are where the card's figures, data
and versions come from. With --dry-run the folder is written and nothing is uploaded.

Exit status: 0 done; 1 not uploaded; 2 the run cannot be used, nothing was written.
"""

import argparse
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from err_seg.commands.options import add_import_option, command_parser, complain, reporting_errors

if TYPE_CHECKING:
    from err_seg.models.card import TrainingRecord
    from err_seg.models.checkpoint import Checkpoint
    from err_seg.prediction.model import ERRSeg


def repository(text: str) -> str:
    """Read the name of a repository."""
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not the name of a repository, USER/REPO")
    return text


@reporting_errors(2)
def main(argv: Sequence[str] | None = None) -> int:
    """Write the folder and upload it."""
    parser = command_parser("publish", __doc__)
    parser.add_argument("run", type=Path, metavar="OUTPUT_DIR", help="of a finished training")
    parser.add_argument("repository", type=repository, metavar="USER/REPO", help="made if it is missing")
    parser.add_argument("--weights", metavar="FILE", default="model_final.safetensors", help="in it (%(default)s)")
    parser.add_argument("--license", metavar="NAME", help="of the weights, as the hub writes it: mit, ...")
    parser.add_argument("--private", action="store_true", help="make the repository for yourself alone")
    parser.add_argument("--folder", type=Path, metavar="DIR", help="where to write (OUTPUT_DIR/published)")
    add_import_option(parser)
    parser.add_argument("--dry-run", action="store_true", help="write the folder, upload nothing")
    arguments = parser.parse_args(argv)
    from err_seg.models import hub
    from err_seg.models.build import build_compiled
    from err_seg.models.hub_files import HubError
    from err_seg.models.pretrained import FILES, upload
    from err_seg.utils.disk import size_text

    folder = arguments.folder or arguments.run / "published"
    cfg, weights = hub.read(arguments.run / arguments.weights, device="cpu", imports=arguments.imports)
    run = read_run(arguments.run, arguments.license, weights)
    model = build_compiled(cfg, weights)
    check_figures(run, model)
    model.save_pretrained(folder, name=arguments.repository, run=run)
    for file in (folder / name for name in FILES):
        print(f"{file}: {size_text(file.stat().st_size)}")
    if not run.results:
        print(f"{arguments.run} holds no results.json: the card has no figures; err-seg evaluate writes it")
    if arguments.dry_run:
        return 0
    try:
        print(upload(folder, arguments.repository, private=arguments.private))
    except HubError as error:
        return complain(f"{error}; the folder is complete: {folder}", 1)
    return 0


def check_figures(run: "TrainingRecord", model: "ERRSeg") -> None:
    """Raise a ValueError if the results of a run say that they are of other weights than the model's."""
    assert model.source is not None  # it was read from a file
    for result in run.results:
        source = result.settings.get("source", {})
        before = model.calibration and model.calibration.sha256
        if source.get("sha256", model.source.sha256) not in (model.source.sha256, before):
            raise ValueError(
                f"results.json is of other weights ({source['file']}) than {model.source.file}; evaluate these into "
                "the same folder first, or publish the others"
            )


def read_run(output: Path, licence: str | None, weights: "Checkpoint") -> "TrainingRecord":
    """Read what a card says about a run from the files in ``output``, and the iterations from those of the weights.

    Raises:
        ValueError, OSError: a file exists and cannot be read.
    """
    from err_seg.config import get_cfg
    from err_seg.evaluation import load_results
    from err_seg.models.card import TrainingRecord

    training: dict[str, Any] = {}
    if (output / "config.yaml").is_file():
        cfg = get_cfg(output / "config.yaml")
        planned = cfg.SOLVER.MAX_ITER
        done = json.loads(weights.metadata.get("iteration", str(planned)))
        training = {
            "data": ", ".join(cfg.DATASETS.TRAIN),
            "CLIP": f"{cfg.MODEL.CLIP.NAME}, {Path(cfg.MODEL.CLIP.PRETRAINED).name or 'random weights'}",
            "iterations": f"{done}{f' of {planned}' if done != planned else ''}",
            "images in an iteration": cfg.SOLVER.IMS_PER_BATCH,
            "seed": cfg.SEED,
        }
    if (file := output / "environment.json").is_file():
        try:
            facts = json.loads(file.read_text(encoding="utf-8"))
            training |= {"precision": facts["precision"], "torch": facts["packages"]["torch"]}
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{file} is not what training writes ({type(error).__name__}: {error}); move it away, and the card "
                "names no versions"
            ) from error
    results = output / "results.json"
    return TrainingRecord(load_results(results) if results.is_file() else (), training, licence)
