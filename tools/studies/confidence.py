"""How far confidence can be trusted before and after calibration, and how many errors a review by it finds."""

import sys
from collections.abc import Sequence

import numpy as np
import torch

from err_seg.evaluation import ConfusionMatrix
from err_seg.evaluation.calibration import (
    BINS,
    CALIBRATION_METRICS,
    COVERAGES,
    count_pixels,
    fit,
    group_metrics,
    risk_coverage,
)
from err_seg.evaluation.results import text_table
from err_seg.jobs.review import doubtful_regions, expected_errors
from err_seg.lab.table import mean_text
from err_seg.mini.scenes import MiniScenes
from err_seg.mini.vocabulary import SEEN, UNSEEN, VOCABULARY
from err_seg.models import hub
from err_seg.prediction.calibration import Calibration
from err_seg.prediction.model import ERRSeg
from tools.studies import add_network_options, save_study, study_parser

SIDES = (128, 192)
REVIEWED = 10  # percent of all pixels
PIXELS, REGIONS = "errors found, pixel by pixel", "errors found, region by region"
"""Share of all wrong pixels among the first :data:`REVIEWED` % of all, the most doubtful ones first."""
COLUMNS = (*CALIBRATION_METRICS, PIXELS, REGIONS)

Rows = dict[str, dict[str, float]]


def calibrated_on(model: ERRSeg, scenes: MiniScenes) -> Calibration:
    """Fit a calibration to scenes."""
    leads = torch.zeros(BINS, 2, dtype=torch.int64)
    for sample in (scenes[index] for index in range(len(scenes))):
        result = model.predict(sample.image, VOCABULARY, contrast="none")
        leads += count_pixels(result.lead.flatten(), (result.labels == torch.from_numpy(sample.label)).flatten())[0]
    return Calibration(*fit(leads.numpy()), "validation scenes", len(scenes))


def measure(model: ERRSeg, scenes: MiniScenes) -> Rows:
    """Return :data:`COLUMNS` in percent of the network's own scores, and of calibrated confidence."""
    kinds = {"scores": "scores", "calibrated confidence": "confidence"}
    counts = {kind: ConfusionMatrix(len(VOCABULARY), 255) for kind in kinds}
    regions: dict[str, list[tuple[float, int, int]]] = {kind: [] for kind in kinds}
    for counter in counts.values():
        counter.count_confidence((SEEN, UNSEEN))
    for sample in (scenes[index] for index in range(len(scenes))):
        result, label = model.predict(sample.image, VOCABULARY, contrast="none"), torch.from_numpy(sample.label)
        labels, is_wrong = result.labels.numpy(), (result.labels != label).numpy()
        for kind, name in kinds.items():
            trust = getattr(result, name)
            counts[kind].update(result.labels, label, trust)
            for region in doubtful_regions(trust.numpy(), labels, VOCABULARY):
                x, y, width, height = region.box
                wrong = is_wrong[y : y + height, x : x + width][region.mask].sum()
                regions[kind].append((expected_errors(region), region.area, int(wrong)))
    return {kind: columns_of(counts[kind], regions[kind]) for kind in kinds}


def columns_of(counts: ConfusionMatrix, regions: Sequence[tuple[float, int, int]]) -> dict[str, float]:
    """Compute :data:`COLUMNS` from counts, and from the expected errors, area and errors of regions."""
    assert counts.confidences is not None
    pixels = counts.confidences.sum(dim=0).numpy()
    risks = dict(risk_coverage(pixels))
    by_pixel = 100 - (100 - REVIEWED) * risks[100 - REVIEWED] / risks[max(COVERAGES)]
    ordered = np.array(sorted(regions, reverse=True))
    areas, errors = (np.append(0, ordered[:, place].cumsum()) for place in (1, 2))
    by_region = 100 * np.interp(REVIEWED / 100 * pixels.sum(), areas, errors) / pixels[:, 0].sum()
    values = (*(group_metrics(counts.confidences)[name] for name in CALIBRATION_METRICS), by_pixel, float(by_region))
    return dict(zip(COLUMNS, values, strict=True))


def markdown(found: Sequence[Rows]) -> str:
    """Write the means over the networks as a table."""
    rows = [[kind, *(mean_text([of[kind][name] for of in found], ".2f") for name in COLUMNS)] for kind in found[0]]
    return text_table(["%", *COLUMNS], rows) + f"\n\nIn random order, a review of {REVIEWED} % finds {REVIEWED} %.\n"


def main(argv: Sequence[str] | None = None) -> None:
    """Measure the networks, and write the table."""
    parser = study_parser("confidence", __doc__)
    add_network_options(parser)
    options = parser.parse_args(argv)
    found, fitted = [], []
    for name in options.networks:
        model = hub.load(name)
        model.calibration = calibrated_on(model, MiniScenes("val", SIDES, length=options.scenes))
        print(f"{name}: {model.calibration}", file=sys.stderr)
        fitted.append(str(model.calibration))
        found.append(measure(model, MiniScenes("test", SIDES, length=options.scenes)))
    save_study(options.output, markdown(found), {"calibrations": fitted, "found": found})


if __name__ == "__main__":
    main()
