"""Sweeps: tables of variants and seeds, each measured once, resumable at any moment.

===================  ================================================================================
``definition.py``    a sweep's YAML file: variants, seeds, the paper's values, the plot
``plan.py``          from variant and seed to a configuration, and to folders that sweeps share
``checks.py``        checks before anything is run
``steps.py``         trainings and evaluations, as processes
``work.py``          runs the missing ones; killed ones continue
``display.py``       progress on the screen
``measured.py``      reads the results that are there
``report.py``        the plan as text; tables in Markdown, CSV and JSON
``plots.py``         mIoU over the swept value
``vocabularies.py``  the same scenes with 100 to 10,000 names (``err-seg mini vocabularies``)
===================  ================================================================================

The command is ``err-seg sweep``; ``configs/ablations`` holds the paper's sweeps.
"""

from err_seg.lab.sweeps.definition import NoMiniSweep, Sweep, SweepError, Variant, load_sweep
from err_seg.lab.sweeps.display import Display
from err_seg.lab.sweeps.executor import work_through
from err_seg.lab.sweeps.plan import Run, plan_runs, select_runs
from err_seg.lab.sweeps.run_steps import Workers

__all__ = [
    "Display",
    "NoMiniSweep",
    "Run",
    "Sweep",
    "SweepError",
    "Variant",
    "Workers",
    "load_sweep",
    "plan_runs",
    "select_runs",
    "work_through",
]
