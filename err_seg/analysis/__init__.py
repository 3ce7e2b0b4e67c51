"""What the paper measures of data and vocabularies: how much of a vocabulary a picture needs, and what CRM finds of it.

- :mod:`~err_seg.analysis.classes_per_picture`: classes per picture, and the redundant rest of the vocabulary (Table I);
- :mod:`~err_seg.analysis.class_recall`: which share of the classes present is among the K that CRM keeps (the reason
  why Table XIII saturates);
- :mod:`~err_seg.analysis.vocabulary_similarity`: how much of a vocabulary is in the training vocabulary (Table IV);
- :mod:`~err_seg.analysis.figures`: a picture of each.

The command is ``tools/analyze_data.py``.
"""

from err_seg.analysis.class_recall import ClassRecall, measure_class_recall, recall_table
from err_seg.analysis.classes_per_picture import ClassCounts, class_counts_table, count_classes
from err_seg.analysis.vocabulary_similarity import (
    NearestClasses,
    build_embedder,
    nearest_classes,
    resolve_vocabulary,
    similarity_table,
)

__all__ = [
    "ClassCounts",
    "ClassRecall",
    "NearestClasses",
    "build_embedder",
    "class_counts_table",
    "count_classes",
    "measure_class_recall",
    "nearest_classes",
    "recall_table",
    "resolve_vocabulary",
    "similarity_table",
]
