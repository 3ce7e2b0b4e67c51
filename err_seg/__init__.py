"""ERR-Seg: any picture plus any list of class names in, a label for every pixel out."""

from err_seg.build import build_model
from err_seg.checkpoint import load_weights, save_weights
from err_seg.config import get_cfg
from err_seg.hub import load
from err_seg.modeling.segmentation import Segmentation
from err_seg.version import __version__

__all__ = ["Segmentation", "__version__", "build_model", "get_cfg", "load", "load_weights", "save_weights"]
