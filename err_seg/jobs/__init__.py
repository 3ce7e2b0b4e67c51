"""Prediction on the user's own images and videos, from the inputs on the command line to the result files.

Inputs become items (``inputs``); a :class:`Job` predicts them (``runner``) and writes their files (``formats``) into a
folder that records what is complete (``output``, ``manifest``). :func:`gather_results` joins those of all images.
"""

from err_seg.jobs.failures import DeviceError, Problem
from err_seg.jobs.formats import FORMATS
from err_seg.jobs.inputs import Item, collect_sources, iterate_items
from err_seg.jobs.job_outputs import GATHERED, gather_results
from err_seg.jobs.job_report import Report, gather_reports
from err_seg.jobs.label_set import UNLABELED, LabelSet, LabelSetError, parse_label_set, split_names
from err_seg.jobs.manifest import OutputError
from err_seg.jobs.output import open_output
from err_seg.jobs.runner import Job

__all__ = [
    "FORMATS",
    "GATHERED",
    "UNLABELED",
    "DeviceError",
    "Item",
    "Job",
    "LabelSet",
    "LabelSetError",
    "OutputError",
    "Problem",
    "Report",
    "collect_sources",
    "gather_reports",
    "gather_results",
    "iterate_items",
    "open_output",
    "parse_label_set",
    "split_names",
]
