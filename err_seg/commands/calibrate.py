"""Calibrate a model on labelled images: results then say how probable it is that a pixel's label is right.

    err-seg calibrate output/b/model_final.safetensors --datasets ade20k_150_val
    err-seg calibrate err-seg-b --datasets my_streets_val --output calibrated.safetensors

Fits one temperature and one offset, and stores them in the metadata of the file; its weights stay as they are. Use data
that the model was not trained on. A model by name, of the Hugging Face hub, or in a .pth file is written to --output.
Keys such as DATASETS.ROOT, TEST.BATCH_SIZE and TEST.NUM_IMAGES are set with --opts.

Exit status: 0 done; 2 the model or the data cannot be used, nothing was written.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from err_seg.commands.options import add_model_options, command_parser, reporting_errors

NOT_JSON = ("err_seg_version", "format")  # of metadata


@reporting_errors(2)
def main(argv: Sequence[str] | None = None) -> None:
    """Count, fit, write the file, and print the cross-validated metrics."""
    parser = command_parser("calibrate", __doc__)
    add_model_options(parser, positional=True)
    parser.add_argument("--datasets", nargs="+", required=True, metavar="NAME", help="labelled; registered names")
    parser.add_argument("--output", type=Path, metavar="FILE", help="a .safetensors file (default: MODEL itself)")
    arguments = parser.parse_args(argv)
    output = output_file(arguments.model, arguments.output)
    from err_seg.commands.models import load_options
    from err_seg.evaluation.benchmarks import FOLDS, count_for_calibration, open_benchmarks
    from err_seg.evaluation.calibration import CALIBRATION_METRICS, cross_validate, fit
    from err_seg.evaluation.results import text_table
    from err_seg.lab.table import mean_text
    from err_seg.models import hub
    from err_seg.models.build import build_compiled
    from err_seg.models.checkpoint import save_weights
    from err_seg.models.pretrained import stored_config
    from err_seg.prediction.calibration import Calibration

    cfg, weights = hub.read(arguments.model, **load_options(arguments))
    cfg.DATASETS.TEST = arguments.datasets
    benchmarks = open_benchmarks(cfg)
    if (images := sum(map(len, benchmarks))) < FOLDS:
        raise ValueError(
            f"{', '.join(arguments.datasets)}: {images} labelled images; calibration needs {FOLDS} or more"
        )
    model = build_compiled(cfg, weights)
    leads, scores = count_for_calibration(cfg, model, benchmarks)
    checked = cross_validate(leads, scores)
    sha256 = (model.calibration and model.calibration.sha256) or weights.source.sha256
    calibration = Calibration(*fit(leads.sum(axis=0)), ", ".join(p.spec.name for p in benchmarks), images, sha256)
    facts = {name: json.loads(text) for name, text in weights.metadata.items() if name not in NOT_JSON}
    if arguments.config_file or "config" not in facts or any("MODEL." in o or "INPUT." in o for o in arguments.opts):
        facts["config"] = stored_config(model)  # with which it was calibrated
    save_weights(weights.weights, output, {**facts, "calibration": asdict(calibration)})
    rows = [
        [title, *(mean_text([part[place][metric] for part in checked], ".2f") for metric in CALIBRATION_METRICS[:3])]
        for place, title in enumerate(("scores", "confidence, of other images than those it was fitted on"))
    ]
    print(text_table(["%", "ECE", "Brier", "AURC"], rows))
    print(f"{output}: {calibration}")


def output_file(model: str, output: Path | None) -> Path:
    """Return the file to write: ``output``, else that of the model.

    Raises:
        ValueError: it holds no metadata, or cannot be written.
    """
    file, remedy = output or Path(model), "name a file to write: --output FILE.safetensors"
    if output is None and not file.is_file():
        raise ValueError(f"{model} is not a file on this machine that a calibration could be stored in; {remedy}")
    if file.suffix != ".safetensors" or file.is_dir():
        raise ValueError(f"{file} is not a .safetensors file, which alone can hold a calibration; {remedy}")
    folder = next(folder for folder in file.absolute().parents if folder.exists())
    if not (folder.is_dir() and all(os.access(place, os.W_OK) for place in (folder, file) if place.exists())):
        raise ValueError(f"{file} cannot be written, so it cannot hold a calibration; {remedy}")
    return file
