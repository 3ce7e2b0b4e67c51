"""ERR-Seg: any picture plus any list of class names in, a label for every pixel out.

Errors that name what is wrong with what was given: :class:`ArgumentError`, :class:`VocabularyError`,
:class:`PictureError` and :class:`ImageReadError` (a file) of ``predict``, :class:`TooLargeError` of its results,
:class:`ConfigError`, :class:`CheckpointError` and :class:`HubError` (a model by name) of what builds and loads models.
"""

from err_seg.arguments import ArgumentError
from err_seg.build import build_model
from err_seg.checkpoint import CheckpointError, load_weights, save_weights
from err_seg.config import ConfigError, get_cfg
from err_seg.data.images import ImageReadError
from err_seg.hub import HubError, load
from err_seg.modeling.segmentation import Segmentation, TooLargeError
from err_seg.pictures import PictureError
from err_seg.prompts import VocabularyError
from err_seg.version import __version__

__all__ = [
    "ArgumentError",
    "CheckpointError",
    "ConfigError",
    "HubError",
    "ImageReadError",
    "PictureError",
    "Segmentation",
    "TooLargeError",
    "VocabularyError",
    "__version__",
    "build_model",
    "get_cfg",
    "load",
    "load_weights",
    "save_weights",
]
