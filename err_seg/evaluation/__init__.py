"""Evaluation of semantic segmentation: confusion matrix → metrics → result files; predictions → files."""

from err_seg.data.images import read_label as load_label_png
from err_seg.evaluation.boundary import BoundaryConfusion
from err_seg.evaluation.confusion import ConfusionMatrix
from err_seg.evaluation.metrics import SUMMARY_METRICS, class_pixels, segmentation_metrics, unique_names
from err_seg.evaluation.results import (
    BenchmarkResult,
    class_table,
    copypaste_lines,
    load_results,
    save_class_csv,
    save_results,
    save_summary_csv,
    summary_table,
)
from err_seg.visualization.label_files import (
    rle_segments,
    save_label_png,
    save_rle_json,
)

__all__ = [
    "SUMMARY_METRICS",
    "BenchmarkResult",
    "BoundaryConfusion",
    "ConfusionMatrix",
    "class_pixels",
    "class_table",
    "copypaste_lines",
    "load_label_png",
    "load_results",
    "rle_segments",
    "save_class_csv",
    "save_label_png",
    "save_results",
    "save_rle_json",
    "save_summary_csv",
    "segmentation_metrics",
    "summary_table",
    "unique_names",
]
