"""From a batch to its loss, the same for both engines, and the teacher that the loss may compare with."""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from err_seg.config import Config, ConfigError
from err_seg.data import Batch, DatasetSpec
from err_seg.modeling.loss import count_pixels, distillation_loss, segmentation_loss
from err_seg.models.hub import load
from err_seg.plugins import LOSS_TERMS
from err_seg.prediction.model import ERRSeg
from err_seg.utils.device import upload
from err_seg.utils.fingerprint import weights_digest
from err_seg.utils.processes import process_share, sum_over_processes


class LossInputs(NamedTuple):
    """What a term of the loss is computed from.

    images: (B, 3, S, S) uint8, RGB.
    labels: (B, S, S) int64; values outside 0..T−1 are ignored (or ``BACKGROUND``, err_seg/utils/images.py).
    logits, kept: of the network, (B, K, S/4, S/4) and (B, K) class indices.
    num_classes: T.
    """

    images: Tensor
    labels: Tensor
    logits: Tensor
    kept: Tensor
    num_classes: int


LossTerm = Callable[[LossInputs], Tensor]


def build_loss_terms(cfg: Config) -> dict[str, tuple[float, LossTerm]]:
    """Build the terms that ``MODEL.LOSS.TERMS`` adds to the loss: name to weight and term.

    Raises:
        ConfigError: no imported package registers a term of that name, or it has the name of one of the package's own.
    """
    names = cfg.MODEL.LOSS.TERMS
    if taken := sorted({"sem_seg", "distill"}.intersection(names)):
        raise ConfigError(f"MODEL.LOSS.TERMS: {taken[0]} is the name of a term that is always there; choose another")
    weights = cfg.MODEL.LOSS.TERM_WEIGHTS or [1.0] * len(names)
    return {name: (weight, LOSS_TERMS.get(name)(cfg)) for name, weight in zip(names, weights, strict=True)}


class Teacher:
    """A trained, frozen ERR-Seg that segments the classes that a student has kept.

    It normalises the student's training images by its own statistics, resizes them to its own size (``INPUT.SIZE`` of
    its configuration), and reads the class names with its own text tower.

    Raises:
        ConfigError: the network of ``MODEL.DISTILL.WEIGHTS`` does not exist, or cannot read the names.

    Attributes:
        digest: identifies its weights.
    """

    def __init__(self, weights: str, vocabulary: Sequence[str], device: torch.device):
        try:
            self.model = load(weights, device=str(device)).requires_grad_(False)
            self.text = self.model.embed_vocabulary(vocabulary)
        except ValueError as error:
            raise ConfigError(f"MODEL.DISTILL.WEIGHTS: {error}") from error
        self.digest = weights_digest(self.model)

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


def vocabulary_input(model: ERRSeg, vocabulary: tuple[str, ...]) -> Tensor:
    """Return what the model's ``forward`` takes as text: tokens where the text tower trains, else fixed embeddings."""
    if model.encoder.trains_text:
        return model.vocabulary_encoder.tokenize(vocabulary).to(model.device)
    return model.embed_vocabulary(vocabulary)


def mean_pixels(labels: Sequence[Tensor], model: ERRSeg, num_classes: int) -> Tensor:
    """Return the ``num_pixels`` for :func:`segmentation_loss` that makes the mean over an iteration's parts its loss.

    It depends on labels alone, so it is known before the first part's backward pass; all processes must call this.

    Args:
        labels: label maps of this process's parts, each (B, H, W) of any integer type.
        num_classes: T.

    Returns:
        The mean number of pixels over the parts of all processes, a float32 scalar on the model's device; never 0.
    """
    parts = [upload(part, model.device).long() for part in labels]
    pixels = torch.stack([count_pixels(part, num_classes, model.head.crm.num_kept_train) for part in parts]).sum()
    return sum_over_processes(pixels).clamp(min=1) / (len(parts) * process_share()[1])


def training_loss(
    network: nn.Module,
    model: ERRSeg,
    batch: Batch,
    text: Tensor,
    spec: DatasetSpec,
    cfg: Config,
    num_pixels: Tensor | None = None,
    teacher: Teacher | None = None,
    terms: Mapping[str, tuple[float, LossTerm]] = MappingProxyType({}),
) -> dict[str, Tensor]:
    """Run a batch through the network and return the terms of its loss, which is their sum.

    Args:
        network: the model, or its wrapper for several processes.
        batch: B images and label maps.
        text: see :func:`vocabulary_input`.
        spec: the data set, of T classes.
        num_pixels: see :func:`mean_pixels`; ``None`` if ignored pixels are negatives, or the batch stands alone.
        teacher: the network whose class maps are to be learned as well, with the weight ``MODEL.DISTILL.WEIGHT``.
        terms: further terms, see :func:`build_loss_terms`.

    Returns:
        Float32 scalars, weighted: "sem_seg", the loss on the labels; with a teacher "distill"; and each of the further
        terms by its name. The first two are means over B·T·pixels, so that the mean over equal parts of a batch is the
        batch's loss.
    """
    labels = upload(batch.labels, model.device).long()
    prediction = network(model.preprocess(batch.images, cfg.INPUT.CROP_SIZE), text, labels=labels)
    of_pixels: dict[str, Any] = {
        "ignored_are_negatives": cfg.MODEL.LOSS.IGNORED_ARE_NEGATIVES,
        "num_pixels": num_pixels,
    }
    logits, kept, num_classes = prediction.logits, prediction.kept, len(spec.vocabulary)
    losses = {"sem_seg": segmentation_loss(logits, kept, labels, num_classes, **of_pixels)}
    if teacher is not None:
        targets = teacher(batch.images, kept, has_padding=model.head.crm.is_adaptive)
        distilled = distillation_loss(logits, targets, kept, labels, num_classes, **of_pixels)
        losses["distill"] = cfg.MODEL.DISTILL.WEIGHT * distilled
    inputs = LossInputs(batch.images, labels, logits, kept, num_classes)
    return losses | {name: weight * term(inputs).float() for name, (weight, term) in terms.items()}
