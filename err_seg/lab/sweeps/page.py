"""The results page: every sweep's table on the miniature world, with its command, its plot and its note."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from err_seg.lab.sweeps.definition import Sweep
from err_seg.lab.sweeps.plan import Run
from err_seg.lab.sweeps.plots import draw_sweep
from err_seg.lab.sweeps.results import VariantResult
from err_seg.lab.sweeps.tables import markdown_table
from err_seg.utils.files import write_text
from err_seg.visualization.plots import save_figure

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


@dataclass(frozen=True)
class Section:
    """One sweep: the rows measured so far, its runs, and images that take the place of its plot."""

    sweep: Sweep
    rows: list[VariantResult]
    runs: list[Run]
    command: str
    images: tuple[tuple[str, str], ...] = ()


def write_page(sections: Sequence[Section], page: Path, scenes: int) -> None:
    """Write the page, and its plots to a folder of the page's name beside it.

    Args:
        sections: the sweeps, in order; those without a measured value are listed as not run.
        page: the Markdown file.
        scenes: number of test scenes.
    """
    shown = [section for section in sections if any(row.values for row in section.rows)]
    facts = _facts([run for section in shown for run in section.runs])
    parts = [HEAD.format(scenes=scenes, facts=facts).rstrip(), *(_render(section, page) for section in shown)]
    missing = [section for section in sections if section not in shown]
    if missing:
        titles = "\n".join(f"* {section.sweep.title}: `{section.command}`" for section in missing)
        parts.append(f"## Not run\n\n{titles}")
    write_text(page, "\n\n".join(parts) + "\n")


def _render(section: Section, page: Path) -> str:
    sweep, rows = section.sweep, section.rows
    parts = [f"## {sweep.title}", f"```bash\n{section.command}\n```", markdown_table(sweep, rows)]
    images = list(section.images)
    if sweep.plot is not None and not images:
        file = page.with_suffix("") / f"{sweep.name}.png"
        save_figure(draw_sweep(sweep, rows), file)
        images.append((f"mIoU over {sweep.plot.label}", f"{page.stem}/{file.name}"))
    parts += [f"![{title}]({file})" for title, file in images]
    return "\n\n".join([*parts, *([sweep.note] if sweep.note else [])])


def _facts(runs: Sequence[Run]) -> str:
    """Say how many trainings the page is made from, with which versions, and on what device they ran."""
    found = set()
    for folder in {run.training.folder for run in runs if run.is_evaluated()}:
        facts = json.loads((folder / "environment.json").read_text(encoding="utf-8"))
        found.add((folder, facts["err_seg"], facts["packages"]["torch"], facts["device"]))
    kinds = sorted({f"err_seg {version}, torch {torch}, {device.upper()}" for _, version, torch, device in found})
    iterations = sorted({run.cfg.SOLVER.MAX_ITER for run in runs})
    images = sorted({run.cfg.SOLVER.IMS_PER_BATCH for run in runs})
    amount = f"{' or '.join(map(str, iterations))} iterations with {' or '.join(map(str, images))} images each"
    return f"{len(found)} trainings of {amount}; {'; '.join(kinds)}."
