"""ERR-Seg in detectron2; docs/detectron2.md shows its use. This package alone imports detectron2.

Importing it registers the meta-architecture, backbone and head, and the data sets in detectron2's catalogs.
"""

try:
    import detectron2  # noqa: F401
except ImportError as error:
    install = (
        "pip install --no-build-isolation "
        "'git+https://github.com/facebookresearch/detectron2.git@02b5c4e295e990042a714712c21dc79b731e8833'"
    )
    raise ImportError(f"err_seg.d2 needs detectron2 ({error}): {install}") from error

from err_seg.d2.catalog import register_datasets
from err_seg.d2.config import add_err_seg_config, from_detectron2, to_detectron2
from err_seg.d2.evaluator import ERRSegEvaluator
from err_seg.d2.mapper import ERRSegMapper
from err_seg.d2.meta_arch import ERRSeg
from err_seg.d2.parts import CLIPBackbone, ERRSegHead
from err_seg.d2.sem_seg import CompactSemSeg
from err_seg.d2.trainer import Trainer

register_datasets()

__all__ = [
    "CLIPBackbone",
    "CompactSemSeg",
    "ERRSeg",
    "ERRSegEvaluator",
    "ERRSegHead",
    "ERRSegMapper",
    "Trainer",
    "add_err_seg_config",
    "from_detectron2",
    "register_datasets",
    "to_detectron2",
]
