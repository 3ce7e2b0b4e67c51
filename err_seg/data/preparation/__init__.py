"""From the data sets' own archives to the files that training and evaluation read.

``labels`` holds the rules as pure functions, ``sources`` the archives' layouts, ``conversions`` the declaration of each
data set; ``convert`` and ``check`` are the one runner and the one checker for all; ``command`` is the command line.
"""

from err_seg.data.preparation.check import SplitCheck, check, write_check
from err_seg.data.preparation.conversions import CONVERSIONS, Conversion
from err_seg.data.preparation.convert import SplitReport, prepare
from err_seg.data.preparation.sources import MissingFiles, PreparationError

__all__ = [
    "CONVERSIONS",
    "Conversion",
    "MissingFiles",
    "PreparationError",
    "SplitCheck",
    "SplitReport",
    "check",
    "prepare",
    "write_check",
]
