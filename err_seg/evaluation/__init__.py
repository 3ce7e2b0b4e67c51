"""Evaluation of semantic segmentation: confusion matrix → metrics → result files; predictions → files."""

from err_seg.evaluation.boundary import BoundaryConfusion
from err_seg.evaluation.confusion import ConfusionMatrix
from err_seg.evaluation.metrics import SUMMARY_METRICS, class_pixels, segmentation_metrics, unique_names
from err_seg.evaluation.open_miou import open_miou
from err_seg.evaluation.results import (
    BenchmarkResult,
    copypaste_lines,
    load_results,
    save_class_csv,
    save_results,
    save_summary_csv,
    summary_table,
)

__all__ = [
    "SUMMARY_METRICS",
    "BenchmarkResult",
    "BoundaryConfusion",
    "ConfusionMatrix",
    "class_pixels",
    "copypaste_lines",
    "load_results",
    "open_miou",
    "save_class_csv",
    "save_results",
    "save_summary_csv",
    "segmentation_metrics",
    "summary_table",
    "unique_names",
]
