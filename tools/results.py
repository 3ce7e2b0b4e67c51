#!/usr/bin/env python
"""Write docs/results.md: the ablations that tools/sweep.py has measured on the miniature world, beside the paper's.

    python tools/sweep.py configs/ablations/*.yaml --mini
    python tools/results.py

Nothing is trained here. What has not been run is listed as such, with its command.
"""

import argparse
import logging
import sys
from pathlib import Path

import err_seg
from err_seg.analysis import measure_class_recall
from err_seg.analysis.figures import draw_saturation, save_figure
from err_seg.data import SegmentationPairs, get_dataset, register_entries
from err_seg.data.mini_world import SCENES
from err_seg.sweeps import SweepError, load_sweep, plan_runs
from err_seg.sweeps.measured import MINI_COLUMNS, measured_rows
from err_seg.sweeps.page import Section, write_page

ROOT = Path(__file__).resolve().parents[1]
SWEEPS = (
    *("table_v", "table_vi", "table_vii", "table_viii", "table_ix", "table_x", "table_xi", "table_xii"),
    *("table_xiii", "table_xiv", "fig_6", "fig_7"),
)
SATURATION = "table_xiii"


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    add = parser.add_argument
    add("--sweeps", type=Path, default=Path("output/sweeps"), metavar="DIR", help="what tools/sweep.py wrote")
    add("--page", type=Path, default=ROOT / "docs/results.md", metavar="FILE", help="default: docs/results.md")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Write the page."""
    arguments = parse_arguments(argv)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    try:
        sections = [make_section(name, arguments.sweeps, arguments.page) for name in SWEEPS]
        if not any(row.figures for section in sections for row in section.rows):
            first = "python tools/sweep.py configs/ablations/*.yaml --mini"
            raise SweepError(f"{arguments.sweeps} holds no run; first: {first}")
        write_page(sections, arguments.page, SCENES["test"])
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"Written to {arguments.page}")
    return 0


def make_section(name: str, store: Path, page: Path) -> Section:
    """Collect what is measured of one sweep."""
    sweep = load_sweep(ROOT / "configs/ablations" / f"{name}.yaml", mini=True)
    runs = plan_runs(sweep, store / "runs")
    command = f"python tools/sweep.py configs/ablations/{name}.yaml --mini"
    section = Section(sweep, measured_rows(sweep, runs), runs, command)
    return add_saturation(section, page) if name == SATURATION else section


def add_saturation(section: Section, page: Path) -> Section:
    """Draw Table XIII's mIoU over K together with the share of the classes present that CRM keeps."""
    done = [(run, row) for run, row in zip(section.runs, section.rows, strict=False) if row.figures]
    if len(done) < 2:  # no curve
        return section
    done.sort(key=lambda pair: pair[0].cfg.MODEL.CRM.NUM_KEPT)
    miou = {
        column: [(row.mean(column) or 0.0, row.deviation(column) or 0.0) for _, row in done] for column in MINI_COLUMNS
    }
    cfg = done[0][0].cfg.clone()
    register_entries(cfg.DATASETS.CUSTOM)
    cfg.MODEL.WEIGHTS = str(done[0][0].weights)
    pairs = SegmentationPairs(get_dataset(cfg.DATASETS.TEST[0]), cfg.DATASETS.ROOT)
    recall = measure_class_recall(cfg, err_seg.build_model(cfg), pairs)
    file = page.with_suffix("") / f"{section.sweep.name}.png"
    save_figure(draw_saturation([run.cfg.MODEL.CRM.NUM_KEPT for run, _ in done], miou, [recall]), file)
    title = "mIoU over K, and the share of the classes present that CRM keeps"
    return Section(section.sweep, section.rows, section.runs, section.command, ((title, f"{page.stem}/{file.name}"),))


if __name__ == "__main__":
    sys.exit(main())
