"""A Dice loss besides the loss on the labels: ``MODEL.LOSS.TERMS: [dice]``, its settings under ``EXTRA.DICE_LOSS``.

The Dice coefficient of a class map with its label map counts small classes as much as large ones (Milletari et al.,
V-Net, 2016). A term of the loss is a function of :class:`err_seg.engine.step.LossInputs`.
"""

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

from err_seg.config import Config, constraints, extra_section
from err_seg.config.section import Section, key
from err_seg.engine.step import LossInputs
from err_seg.modeling.crm import kept_class_labels
from err_seg.plugins import LOSS_TERMS, SECTIONS

__version__ = "1.0"


@SECTIONS.register("DICE_LOSS")
class DiceLossConfig(Section):
    """``EXTRA.DICE_LOSS``."""

    # pixels of the class map (at a quarter of the image's resolution) that are added to numerator and denominator
    SMOOTHING: float = key(1.0, constraints.POSITIVE)


@dataclass
class DiceLoss:
    """1 − (2·Σ p·y + s) / (Σ p + Σ y + s), averaged over the classes that each image's label map holds.

    Sums run over the pixels with a label that CRM has kept; ignored pixels and padded rows count nowhere.

    Attributes:
        smoothing: s, above 0.
    """

    smoothing: float

    def __call__(self, inputs: LossInputs) -> Tensor:
        """Compute the loss, a float32 scalar in 0..1; 0 if no pixel counts."""
        logits, kept = inputs.logits.float(), inputs.kept  # B×K×h×w, B×K
        labels = F.interpolate(inputs.labels[:, None].float(), logits.shape[-2:], mode="nearest-exact")[:, 0].long()
        places = kept_class_labels(labels, kept, inputs.num_classes)  # B×h×w
        counted = (places >= 0)[:, None]
        truth = F.one_hot(places.clamp(min=0), kept.shape[1]).movedim(-1, 1) * counted  # B×K×h×w
        predicted = logits.sigmoid() * counted
        sizes = truth.sum(dim=(2, 3))  # B×K
        overlap = (predicted * truth).sum(dim=(2, 3))
        dice = (2 * overlap + self.smoothing) / (predicted.sum(dim=(2, 3)) + sizes + self.smoothing)
        present = sizes > 0
        return ((1 - dice) * present).sum() / present.sum().clamp(min=1)


@LOSS_TERMS.register("dice")
def build(cfg: Config) -> DiceLoss:
    """Build the term from ``EXTRA.DICE_LOSS``."""
    return DiceLoss(extra_section(cfg, "DICE_LOSS").SMOOTHING)
