"""ERR-Seg: segment any image with any list of class names.

Errors that name what is wrong with what was given: :class:`ArgumentError`, :class:`VocabularyError`,
:class:`ImageError` and :class:`ImageReadError` (a file) of ``predict``, :class:`TooLargeError` and
:class:`NonFiniteError` (damaged weights) of its results, :class:`ConfigError`, :class:`CheckpointError` and
:class:`HubError` (a model by name) of what builds and loads models.

What stands here, and every sub-package, is imported when it is first used: ``import err_seg`` takes no time.
"""

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from err_seg.version import __version__

if TYPE_CHECKING:  # an import "as" the same name is public for type checkers
    from err_seg.config import ConfigError as ConfigError
    from err_seg.config import get_cfg as get_cfg
    from err_seg.data.images import ImageError as ImageError
    from err_seg.data.images import ImageReadError as ImageReadError
    from err_seg.models import build as build
    from err_seg.models.build import build_model as build_model
    from err_seg.models.checkpoint import CheckpointError as CheckpointError
    from err_seg.models.checkpoint import load_weights as load_weights
    from err_seg.models.checkpoint import save_weights as save_weights
    from err_seg.models.hub import ERRSeg as ERRSeg
    from err_seg.models.hub import HubError as HubError
    from err_seg.models.hub import load as load
    from err_seg.prediction.class_maps import TooLargeError as TooLargeError
    from err_seg.prediction.examples import Exemplar as Exemplar
    from err_seg.prediction.segmentation import Segmentation as Segmentation
    from err_seg.prediction.smoothing import smoothed as smoothed
    from err_seg.text.prompts import VocabularyError as VocabularyError
    from err_seg.text.rows import save_vocabulary as save_vocabulary
    from err_seg.text.vocabularies import vocabularies as vocabularies
    from err_seg.utils.errors import NonFiniteError as NonFiniteError
    from err_seg.utils.validation import ArgumentError as ArgumentError

_NAMES = {
    "config": ("ConfigError", "get_cfg"),
    "data.images": ("ImageError", "ImageReadError"),
    "models": ("build",),
    "models.build": ("build_model",),
    "models.checkpoint": ("CheckpointError", "load_weights", "save_weights"),
    "models.hub": ("ERRSeg", "HubError", "load"),
    "prediction.class_maps": ("TooLargeError",),
    "prediction.examples": ("Exemplar",),
    "prediction.segmentation": ("Segmentation",),
    "prediction.smoothing": ("smoothed",),
    "text.prompts": ("VocabularyError",),
    "text.rows": ("save_vocabulary",),
    "text.vocabularies": ("vocabularies",),
    "utils.errors": ("NonFiniteError",),
    "utils.validation": ("ArgumentError",),
}
HOMES = {name: module for module, names in _NAMES.items() for name in names}
__all__ = ["__version__", *HOMES]


def __getattr__(name: str) -> Any:
    """Import a name of this package, or one of its modules."""
    if name in HOMES:
        value = getattr(import_module(f"err_seg.{HOMES[name]}"), name)
    elif not name.startswith("_") and find_spec(f"err_seg.{name}"):
        value = import_module(f"err_seg.{name}")
    else:
        raise AttributeError(f"module 'err_seg' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the names that are there for use."""
    return sorted(__all__)
