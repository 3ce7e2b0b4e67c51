"""Collects what sweeps have measured on the miniature world, for a page."""

from pathlib import Path

from err_seg.config import shipped_configs
from err_seg.data import SegmentationPairs, get_dataset, register_entries
from err_seg.lab.analysis import measure_class_recall
from err_seg.lab.analysis.figures import draw_saturation
from err_seg.lab.sweeps.definition import SweepError, load_sweep
from err_seg.lab.sweeps.page import Section, write_page
from err_seg.lab.sweeps.plan import plan_runs
from err_seg.lab.sweeps.results import MINI_COLUMNS, measured_rows
from err_seg.mini.files import SCENES
from err_seg.models.build import build_model
from err_seg.visualization.plots import save_figure

SWEEPS = (
    *("table_v", "table_vi", "table_vii", "table_viii", "table_ix", "table_x", "table_xi", "table_xii"),
    *("table_xiii", "table_xiv", "fig_6", "fig_7"),
)
SATURATION = "table_xiii"
FIRST = "python tools/sweep.py configs/ablations/*.yaml --mini"


def write_results(store: Path, page: Path) -> None:
    """Write the page with the results of the shipped sweeps.

    Args:
        store: the folder that ``err-seg sweep --mini`` wrote to.
        page: a Markdown file; its plots go to a folder of the same name.

    Raises:
        SweepError: nothing was measured.
    """
    sections = [make_section(name, store, page) for name in SWEEPS]
    if not any(row.values for section in sections for row in section.rows):
        raise SweepError(f"{store} holds no run; first: {FIRST}")
    write_page(sections, page, SCENES["test"])


def make_section(name: str, store: Path, page: Path) -> Section:
    """Collect the results of one sweep."""
    sweep = load_sweep(shipped_configs() / "ablations" / f"{name}.yaml", mini=True)
    runs = plan_runs(sweep, store / "runs")
    command = f"python tools/sweep.py configs/ablations/{name}.yaml --mini"
    section = Section(sweep, measured_rows(sweep, runs), runs, command)
    return add_saturation(section, page) if name == SATURATION else section


def add_saturation(section: Section, page: Path) -> Section:
    """Draw Table XIII's mIoU over K together with the share of the classes present that CRM keeps."""
    done = [(run, row) for run, row in zip(section.runs, section.rows, strict=False) if row.values]
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
    recall = measure_class_recall(cfg, build_model(cfg), pairs)
    file = page.with_suffix("") / f"{section.sweep.name}.png"
    save_figure(draw_saturation([run.cfg.MODEL.CRM.NUM_KEPT for run, _ in done], miou, [recall]), file)
    title = "mIoU over K, and the share of the classes present that CRM keeps"
    return Section(section.sweep, section.rows, section.runs, section.command, ((title, f"{page.stem}/{file.name}"),))
