"""What the paper measures of data and vocabularies: how much of a vocabulary an image needs, and what CRM finds of it.

- :mod:`~err_seg.lab.analysis.classes_per_image`: classes per image, and the redundant rest of the vocabulary (Table I);
- :mod:`~err_seg.lab.analysis.class_recall`: which share of the classes present is among the K that CRM keeps (the
  reason why Table XIII saturates);
- :mod:`~err_seg.lab.analysis.vocabulary_similarity`: how much of a vocabulary is in the training vocabulary (Table IV);
- :mod:`~err_seg.lab.analysis.attention_share`: how much of CFM's attention redundant classes take (Proposition 1);
- :mod:`~err_seg.lab.analysis.precision_error`: what bf16 and fp16 change in results;
- :mod:`~err_seg.models.check`: whether a loaded model is in order (``err-seg check``);
- :mod:`~err_seg.lab.analysis.figures`: a figure of each, and mIoU over K beside CRM's recall (Table XIII).

Two further figures: :mod:`~err_seg.lab.analysis.attention_comparison` runs an image with all classes kept and with K of
them, and :mod:`~err_seg.lab.analysis.redundancy_figure` draws the attention of both (Fig. 2);
:mod:`~err_seg.lab.analysis.image_grid` sets images beside what is predicted for lists of words (Fig. 8 to 10), on the
layout of :mod:`~err_seg.visualization.grid`.

The commands are ``err-seg analyze`` and ``err-seg figures``.
"""

from err_seg.lab.analysis.attention_share import AttentionShare, measure_attention_share, share_table
from err_seg.lab.analysis.class_recall import ClassRecall, measure_class_recall, recall_table
from err_seg.lab.analysis.classes_per_image import ClassCounts, class_counts_table, count_classes
from err_seg.lab.analysis.vocabulary_similarity import (
    NearestClasses,
    build_embedder,
    nearest_classes,
    resolve_vocabulary,
    similarity_table,
)

__all__ = [
    "AttentionShare",
    "ClassCounts",
    "ClassRecall",
    "NearestClasses",
    "build_embedder",
    "class_counts_table",
    "count_classes",
    "measure_attention_share",
    "measure_class_recall",
    "nearest_classes",
    "recall_table",
    "resolve_vocabulary",
    "share_table",
    "similarity_table",
]
