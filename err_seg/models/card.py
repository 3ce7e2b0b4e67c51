"""The card of a published model: what it is, how it is used, what it was trained on, and its figures."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from err_seg.evaluation.results import BenchmarkResult, summary_table
from err_seg.prediction.calibration import Calibration
from err_seg.version import __version__

PAPER = "https://arxiv.org/abs/2501.17642"
FORMULAS = (
    "Percent. `mIoU` is the formula of detectron2's main branch, and `mIoU-v0.6` that of its last release: they divide "
    "the same sum by different numbers of classes, of which published tables use either."
)
IF_SET = {"min_score": "minimum score", "shortest_side": "shortest side", "tile": "tile", "num_images": "images"}
UNLICENSED = "Not stated. The licences of the CLIP weights and of the training data apply."


@dataclass(frozen=True)
class TrainingRecord:
    """What a card says about a run.

    Attributes:
        results: of the evaluation.
        training: name to value, such as the training data and the number of iterations.
        licence: of the weights, an identifier of the Hugging Face hub such as "mit"; ``None``: not stated.
    """

    results: Sequence[BenchmarkResult] = ()
    training: Mapping[str, Any] = field(default_factory=dict)
    licence: str | None = None


def model_card(
    name: str, settings: Mapping[str, Any], run: TrainingRecord, calibration: Calibration | None = None
) -> str:
    """Write the card of a model, named after its repository or folder, as Markdown with the hub's metadata in front."""
    evaluated = [
        EvalResult(
            task_type="image-segmentation",
            dataset_type=result.benchmark,
            dataset_name=result.benchmark,
            metric_type="mean_iou",
            metric_name=metric,
            metric_value=result.metrics[metric],
        )
        for result in run.results
        for metric in ("mIoU", "mIoU-v0.6")
        if not math.isnan(result.metrics[metric])
    ]
    metadata = ModelCardData(
        license=run.licence,
        library_name="err_seg",
        pipeline_tag="image-segmentation",
        tags=["open-vocabulary", "semantic-segmentation"],
        model_name=name.split("/")[-1] if evaluated else None,
        eval_results=evaluated or None,
    )
    clip, size = settings.get("MODEL.CLIP.NAME"), settings.get("INPUT.SIZE")
    packages = settings.get("MODEL.IMPORTS", [])
    imports = f", imports={packages!r}" if packages else ""
    training = "\n".join(f"* {name}: {value}" for name, value in run.training.items())
    how = [f"{result.benchmark}: {', '.join(_how(result.settings)) or 'as is'}" for result in run.results]
    results = [summary_table(run.results), FORMULAS, *how] if run.results else ["None were measured."]
    parts = [
        f"---\n{metadata.to_yaml()}\n---\n\n# {name}",
        f"An [ERR-Seg]({PAPER}) network, which segments any image with any list of class names. "
        f"Its CLIP is {clip}, and it sees images at {size}×{size} pixels."
        + (f" It needs the packages {', '.join(packages)}, which are not part of err_seg." if packages else ""),
        f'## How to use it\n\n```python\nimport err_seg\n\nmodel = err_seg.load("{name}"{imports})\n'
        'out = model.predict("photo.jpg", vocabulary=["cat", "sofa, couch", "wall"])\nout.labels  # (H, W)\n```',
        "## Results",
        *results,
        *([f"## Confidence\n\n`out.confidence` is calibrated: {calibration}."] if calibration else []),
        f"## Training\n\n{training or 'Not recorded.'}",
        f"## Licence\n\n{run.licence or UNLICENSED}",
        f"Written by err_seg {__version__}.",
    ]
    return "\n\n".join(parts) + "\n"


def _how(settings: Mapping[str, Any]) -> Iterator[str]:
    """Yield those of a result's settings that count when it is compared with others."""
    yield from (f"{name} {settings[name]}" for name in ("K", "S", "precision") if name in settings)
    yield from (f"{words} {settings[name]}" for name, words in IF_SET.items() if settings.get(name))
    if settings.get("refine"):
        yield "borders refined"
    if len(views := settings.get("views", ())) > 1:
        yield f"averaged over {len(views)} views of each image"
