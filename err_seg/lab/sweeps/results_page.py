"""The results page: each shipped sweep's table on the miniature world, with its command, its plot and its note."""

import json
from collections.abc import Sequence
from pathlib import Path

from err_seg.config import shipped_configs
from err_seg.data import SegmentationPairs, find_dataset
from err_seg.lab.analysis.class_recall import ClassRecall, draw_saturation, measure_class_recall
from err_seg.lab.sweeps.definition import Sweep, SweepError, load_sweep
from err_seg.lab.sweeps.plan import Run, plan_runs
from err_seg.lab.sweeps.results import VariantResult, measured_rows
from err_seg.lab.sweeps.tables import draw_sweep, markdown_table
from err_seg.mini.files import SCENES
from err_seg.models.build import build_model
from err_seg.utils.files import write_text
from err_seg.visualization.plots import save_figure

SWEEPS = (
    *("table_v", "table_vi", "table_vii", "table_viii", "table_ix", "table_x", "table_xi", "table_xii"),
    *("table_xiii", "table_xiv", "fig_6", "fig_7"),
)
"""The sweeps of ``configs/ablations`` that the page shows, in its order."""
SATURATION = "table_xiii"
COMMAND = "python tools/sweep.py configs/ablations/{}.yaml --mini"
HEAD = """# Results

All numbers on this page were measured on the miniature world; `python tools/results.py` writes it from the runs. The
miniature world is a set of drawn scenes, on which a training takes minutes on a CPU. 24 of its 60 classes are seen in
training, 36 are not.

The numbers say nothing about photographs, and the paper's values cannot be reached here. What this world can show is
whether a switch moves mIoU in the same direction as in the paper.

For the paper's tables on the real data, run the same commands without `--mini`, or `bash scripts/eval_all.sh b` for a
released checkpoint or your own. They need the CLIP weights, the data sets and GPUs.

How to read the tables:

* **seen**, **unseen**, **all**: mIoU in percent over the seen classes, over the unseen ones, and over all 60, on
  {scenes} test scenes: mean ± standard deviation over the seeds. Each seed draws its own initial weights and its own
  order of training images.
* **difference**: mIoU over all classes minus that of the first row, between runs of the same seed: mean ± standard
  deviation.
* **paper**: mIoU of the same row in the paper; its **difference (mean)** is the mean over the benchmarks.
* **direction**: "within the spread" if the mean of our differences is not larger than their standard deviation;
  otherwise whether the sign is the paper's. "none in the paper" means less than 0.1 points there.

Three seeds are few: a difference of one standard deviation is a hint, not a proof.

{facts}
"""


def write_results(store: Path, page: Path) -> None:
    """Write the page with the results of the shipped sweeps; those without any are listed with their command.

    ``err-seg sweep --mini`` wrote to ``store``. The page's plots go to a folder of the same name beside it.

    Raises:
        SweepError: nothing was measured.
    """
    sections: list[str] = []
    missing: list[str] = []
    shown_runs: list[Run] = []
    for name in SWEEPS:
        sweep = load_sweep(shipped_configs() / "ablations" / f"{name}.yaml", mini=True)
        runs = plan_runs(sweep, store / "runs")
        rows = measured_rows(sweep, runs)
        if any(row.values for row in rows):
            sections.append(_section(sweep, runs, rows, page))
            shown_runs += runs
        else:
            missing.append(f"* {sweep.title}: `{COMMAND.format(name)}`")
    if not sections:
        raise SweepError(f"{store} holds no run; first: {COMMAND.format('*')}")
    if missing:
        sections.append("## Not run\n\n" + "\n".join(missing))
    head = HEAD.format(scenes=SCENES["test"], facts=_facts(shown_runs)).rstrip()
    write_text(page, "\n\n".join([head, *sections]) + "\n")


def _section(sweep: Sweep, runs: Sequence[Run], rows: Sequence[VariantResult], page: Path) -> str:
    command = COMMAND.format(sweep.file.stem)
    parts = [f"## {sweep.title}", f"```bash\n{command}\n```", markdown_table(sweep, rows)]
    if sweep.plot is not None:
        plot, title = page.with_suffix("") / f"{sweep.name}.png", f"mIoU over {sweep.plot.label}"
        figure = draw_sweep(sweep, rows)
        done = [run for run in runs if run.is_evaluated()]
        kept_numbers = {run.cfg.MODEL.CRM.NUM_KEPT for run in done}
        if sweep.file.stem == SATURATION and len(kept_numbers) > 1:
            title = "mIoU over K, and the share of the classes present that CRM keeps"
            draw_saturation(figure.axes[0].twinx(), _class_recall(done[0]), kept_numbers)
        save_figure(figure, plot)
        parts.append(f"![{title}]({page.stem}/{plot.name})")
    return "\n\n".join(filter(None, [*parts, sweep.note]))


def _class_recall(run: Run) -> ClassRecall:
    """Measure the recall of CRM in the network that a run has trained."""
    cfg = run.cfg.clone()
    cfg.MODEL.WEIGHTS = str(run.weights)
    pairs = SegmentationPairs(find_dataset(cfg.DATASETS.TEST[0], cfg.DATASETS.CUSTOM), cfg.DATASETS.ROOT)
    return measure_class_recall(cfg, build_model(cfg), pairs)


def _facts(runs: Sequence[Run]) -> str:
    """Say how many trainings the page is made from, with which versions, and on what device they ran."""
    kinds = []
    for folder in {run.training.folder for run in runs if run.is_evaluated()}:
        facts = json.loads((folder / "environment.json").read_text(encoding="utf-8"))
        kinds.append(f"err_seg {facts['err_seg']}, torch {facts['packages']['torch']}, {facts['device'].upper()}")
    iterations = sorted({run.cfg.SOLVER.MAX_ITER for run in runs})
    images = sorted({run.cfg.SOLVER.IMS_PER_BATCH for run in runs})
    amount = f"{' or '.join(map(str, iterations))} iterations with {' or '.join(map(str, images))} images each"
    return f"{len(kinds)} trainings of {amount}; {'; '.join(sorted(set(kinds)))}."
