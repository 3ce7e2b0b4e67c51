"""From the data sets' own archives to the files that training and evaluation read.

``sources`` holds the archives' layouts, ``conversions`` the declaration of each data set, with the rule for its labels;
``convert`` and ``check`` are the one runner and the one checker for all. ``annotations`` and ``own`` convert what
annotation programs write about one's own images.
"""

from err_seg.data.preparation.check import SplitCheck, check, write_check
from err_seg.data.preparation.conversions import CONVERSIONS
from err_seg.data.preparation.convert import SplitReport, prepare
from err_seg.data.preparation.own import prepare_from
from err_seg.data.preparation.parallel import default_workers
from err_seg.data.preparation.sources import PreparationError

__all__ = [
    "CONVERSIONS",
    "PreparationError",
    "SplitCheck",
    "SplitReport",
    "check",
    "default_workers",
    "prepare",
    "prepare_from",
    "write_check",
]
