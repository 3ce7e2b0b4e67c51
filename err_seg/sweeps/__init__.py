"""Sweeps: tables of variants and seeds, each measured once, resumable at any moment.

==================  ================================================================================
``definition.py``   a sweep's YAML file: variants, seeds, the paper's figures, what is plotted
``plan.py``         variant and seed to configuration, and to folders that sweeps share
``checks.py``       what is checked before anything is run
``steps.py``        the trainings and evaluations, as processes
``work.py``         doing those that are missing; they survive or are gone on with
``display.py``      what is told meanwhile
``measured.py``     the figures of what is done
``report.py``       what will be run; Markdown, CSV and JSON
``plots.py``        figures over the swept value
==================  ================================================================================

The command is ``err-seg sweep``; ``configs/ablations`` holds the paper's.
"""

from err_seg.sweeps.definition import NoMiniSweep, Sweep, SweepError, Variant, load_sweep
from err_seg.sweeps.display import Display
from err_seg.sweeps.plan import Run, plan_runs, select_runs
from err_seg.sweeps.steps import Workers
from err_seg.sweeps.work import work_through

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
