"""Checks of what only a GPU can show, on the miniature world; the findings become a page with the card's name.

Without a GPU the same checks run on the CPU, shortened, as a rehearsal. What only CUDA has is then left out, and the
page says so.
"""

from err_seg.gpu_checks.checks import CHECKS, run_checks
from err_seg.gpu_checks.trial import Finding, Trial

__all__ = ["CHECKS", "Finding", "Trial", "run_checks"]
