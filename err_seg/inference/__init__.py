"""Prediction on pictures of your own: inputs, words, result files, and the loop over them.

================  ===================================================================
``inputs.py``     pictures, folders, globs, videos and standard input, as one list
``video.py``      frames of a video
``words.py``      the classes, and what counts as none of them
``formats.py``    result files: overlay, labels, json, rle, kept, attention
``output.py``     the folder of results: what is done, and for which settings
``runner.py``     the loop: read, predict, write, go on after what cannot be read
``kept.py``       a figure of what CRM kept, and why
``attention.py``  a figure of what ESCF's attentions attend to
``processes.py``  several processes that share a job out
``cli.py``        options that the commands share
================  ===================================================================
"""

from err_seg.inference.formats import FORMATS, Result
from err_seg.inference.inputs import Item, Problem, collect_sources, iterate_items
from err_seg.inference.output import OutputError, claim_output
from err_seg.inference.processes import gather_reports, process_rank
from err_seg.inference.runner import Report, run
from err_seg.inference.words import NOTHING, Words, WordsError, parse_words, split_names

__all__ = [
    "FORMATS",
    "NOTHING",
    "Item",
    "OutputError",
    "Problem",
    "Report",
    "Result",
    "Words",
    "WordsError",
    "claim_output",
    "collect_sources",
    "gather_reports",
    "iterate_items",
    "parse_words",
    "process_rank",
    "run",
    "split_names",
]
