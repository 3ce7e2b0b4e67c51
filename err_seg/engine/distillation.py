"""A trained network as the teacher of another network."""

import logging
from collections.abc import Sequence

import torch
from torch import Tensor

from err_seg.config import ConfigError
from err_seg.models.hub import load
from err_seg.utils.fingerprint import weights_digest

logger = logging.getLogger(__name__)


class Teacher:
    """A trained, frozen ERR-Seg that segments the classes that a student has kept.

    It normalises the student's training images by its own statistics, resizes them to its own size (``INPUT.SIZE`` of
    its configuration), and reads the class names with its own text tower.

    Args:
        weights: ``MODEL.DISTILL.WEIGHTS``.
        vocabulary: T class names.
        device: the student's device.

    Raises:
        ConfigError: the network does not exist, or cannot read the names.

    Attributes:
        digest: identifies its weights.
    """

    def __init__(self, weights: str, vocabulary: Sequence[str], device: torch.device):
        try:
            self.model = load(weights, device=str(device)).requires_grad_(False)
            self.text = self.model.embed_vocabulary(vocabulary)
        except ValueError as error:
            raise ConfigError(f"MODEL.DISTILL.WEIGHTS: {error}") from error
        self.weights, self.digest = weights, weights_digest(self.model)

    def compare(self, digest: str) -> None:
        """Warn if a checkpoint's run learned from weights other than these.

        Args:
            digest: the checkpoint's; "" where it had no teacher.
        """
        if digest not in ("", self.digest):
            logger.warning("the teacher's weights changed since the checkpoint: MODEL.DISTILL.WEIGHTS %s", self.weights)

    @torch.no_grad()
    def __call__(self, images: Tensor, kept: Tensor, *, has_padding: bool = False) -> Tensor:
        """Segment chosen classes.

        Args:
            images: (B, 3, h, w), RGB in 0..255.
            kept: (B, K) int64 indices of the classes; ``NOT_KEPT`` fills up the end of a row.
            has_padding: whether rows may be filled up.

        Returns:
            (B, K, S/4, S/4) float32 probabilities, S being the teacher's own; 0 where a row is filled up.
        """
        features = self.model.encoder(self.model.preprocess(images))
        return self.model.head.segment(features, self.text, kept, has_padding=has_padding).float().sigmoid()
