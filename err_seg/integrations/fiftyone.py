"""Results and models for FiftyOne (Voxel51): ``pip install "err_seg[fiftyone]"``.

import err_seg
from err_seg.integrations.fiftyone import FiftyOneModel

model = FiftyOneModel(err_seg.load("err-seg-b"), ["cat", "sofa, couch", "wall"])
dataset.default_mask_targets = model.mask_targets
dataset.apply_model(model, label_field="err_seg", batch_size=4)
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from err_seg.text.vocabularies import VocabularySource, read_vocabulary

try:
    import fiftyone
    from fiftyone.core.models import Model
except ImportError as error:
    raise ImportError(f'this needs FiftyOne ({error}): pip install "err_seg[fiftyone]"') from error


def segmentation(result: Any) -> fiftyone.Segmentation:
    """Return a result as FiftyOne's ``Segmentation``.

    Its values are the labels plus 1, as in :func:`mask_targets`, since FiftyOne draws nothing where a mask is 0, which
    are the pixels of no class.

    Args:
        result: an ``err_seg.Segmentation``.
    """
    labels = result.labels.cpu().numpy()
    kind = np.uint8 if len(result.vocabulary) <= 255 else np.uint16 if len(result.vocabulary) <= 65535 else np.int32
    return fiftyone.Segmentation(mask=(labels.astype(np.int64) + 1).astype(kind))


def mask_targets(vocabulary: Sequence[str]) -> dict[int, str]:
    """Return the table from the values of masks to class names, for ``dataset.default_mask_targets``."""
    return {label + 1: name for label, name in enumerate(vocabulary)}


class FiftyOneModel(Model):
    """An ERR-Seg network with a vocabulary, for ``dataset.apply_model``.

    Args:
        model: see :func:`err_seg.load`.
        vocabulary, options: as ``model.predict`` takes them.

    Attributes:
        mask_targets: from the values of masks to class names.
    """

    media_type = "image"
    transforms = None  # images arrive as they are in the files
    preprocess = False
    ragged_batches = False  # the images of a batch may differ in size, as those of `predict_all` may

    def __init__(self, model: Any, vocabulary: VocabularySource, **options: Any):
        self.model = model
        self.vocabulary = read_vocabulary(vocabulary)
        self.options = options
        self.mask_targets = mask_targets(self.vocabulary)

    def predict(self, arg: np.ndarray) -> fiftyone.Segmentation:
        """Label an image (H, W, 3) uint8 RGB."""
        return segmentation(self.model.predict(arg, self.vocabulary, **self.options))

    def predict_all(self, args: Iterable[np.ndarray]) -> list[fiftyone.Segmentation]:
        """Label several images, of any sizes, together."""
        images = list(args)
        options = {"batch_size": len(images), **self.options}
        return [segmentation(result) for result in self.model.predict(images, self.vocabulary, **options)]
