"""Prediction on the user's own images and videos, from the inputs on the command line to the result files.

=============================  =====================================================================
``inputs``, ``input_digest``   images, folders, globs, videos and addresses as one list of named items
``video``                      reading and writing videos
``unsupported_formats``        image files that cannot be read, and what to do about each
``label_set``                  the class names, and which pixels belong to no class
``output``, ``manifest``       the results' folder, and the record of the results in it
``runner``, ``prefetch``       the loop: read ahead, predict, write, skip what fails
``failures``                   whether an error concerns one image or the device
``formats``, ``geotiff``       the result files of one image
``job_outputs``                the files of a whole job, joined from those of its images
``job_report``                 what was done, skipped and found, and what failed
=============================  =====================================================================
"""

from err_seg.jobs.failures import DeviceError, Problem
from err_seg.jobs.formats import FORMATS, Result
from err_seg.jobs.inputs import Item, collect_sources, iterate_items
from err_seg.jobs.job_outputs import GATHERED, gather_results
from err_seg.jobs.job_report import Report, gather_reports
from err_seg.jobs.label_set import UNLABELED, LabelSet, LabelSetError, parse_label_set, split_names
from err_seg.jobs.manifest import Manifest, OutputError
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
    "Manifest",
    "OutputError",
    "Problem",
    "Report",
    "Result",
    "collect_sources",
    "gather_reports",
    "gather_results",
    "iterate_items",
    "open_output",
    "parse_label_set",
    "split_names",
]
