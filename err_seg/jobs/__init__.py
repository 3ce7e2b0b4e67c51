"""Prediction on images of your own: inputs, words, result files, and the loop over them.

================  ===================================================================
``inputs.py``     images, folders, globs, videos and standard input, as one list
``contents.py``   what identifies an input: the content of a file, or of bytes that are none
``lookalikes.py`` files that look like images but cannot be read, and what to do about it
``names.py``      names of result files, for every file system
``video.py``      frames of a video
``words.py``      the classes, and which pixels belong to none
``formats.py``    result files of one image
``gathered.py``   files of a whole job, joined from those of its images
``geotiff.py``    label maps where their image lies on the earth
``output.py``     the folder of results: for one set of weights, one set of settings, one job at a time
``manifest.py``   which results are in that folder
``opening.py``    images opened ahead of the network, unless their results are there
``runner.py``     the loop: read, predict, write, skip what cannot be read
``failures.py``   whether an error of the network concerns an image, a batch or everything
``report.py``     what was done and found, and what failed
``kept.py``       a figure of what CRM kept, and why
``attention.py``  a figure of what ESCF's attentions attend to
================  ===================================================================
"""

from err_seg.jobs.failures import DeviceError
from err_seg.jobs.formats import FORMATS, Result
from err_seg.jobs.inputs import Item, Problem, collect_sources, iterate_items
from err_seg.jobs.job_outputs import GATHERED, gather_results
from err_seg.jobs.job_report import Report, gather_reports
from err_seg.jobs.label_set import UNLABELED, LabelSet, LabelSetError, parse_words, split_names
from err_seg.jobs.manifest import Manifest, OutputError
from err_seg.jobs.output import open_output
from err_seg.jobs.runner import run

__all__ = [
    "FORMATS",
    "GATHERED",
    "UNLABELED",
    "DeviceError",
    "Item",
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
    "parse_words",
    "run",
    "split_names",
]
