"""Cutout as a training transform: ``INPUT.TRANSFORMS: [cutout]``, its settings under ``EXTRA.CUTOUT``.

A square of the image is painted grey (DeVries and Taylor, 2017). What cannot be seen there is not to be learnt, so the
label map has the ignore label in the same square.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from err_seg.config import Config, constraints, extra_section
from err_seg.config.section import Section, key
from err_seg.data import find_dataset
from err_seg.data.transforms import GREY
from err_seg.plugins import SECTIONS, TRANSFORMS

__version__ = "1.0"


@SECTIONS.register("CUTOUT")
class CutoutConfig(Section):
    """``EXTRA.CUTOUT``."""

    PROB: float = key(0.5, constraints.SHARE)  # share of the images that lose a square
    SIDE: float = key(0.25, constraints.SHARE)  # its side over the crop's


@dataclass
class Cutout:
    """Paint a square grey, wholly inside the image, and ignore its labels.

    Attributes:
        prob: the probability of a square.
        side: its side, as a share of the image's.
        ignore_label: of the data set.
    """

    prob: float
    side: float
    ignore_label: int

    def __call__(self, image: Tensor, label: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Transform an image (3, S, S) uint8 and its label map (S, S) int64; all random choices are the generator's."""
        chance, top, left = torch.rand(3, generator=generator).tolist()
        size = len(label)
        side = round(self.side * size)
        if chance >= self.prob:
            return image, label
        y, x = (int(place * (size - side + 1)) for place in (top, left))
        image, label = image.clone(), label.clone()
        image[:, y : y + side, x : x + side] = GREY
        label[y : y + side, x : x + side] = self.ignore_label
        return image, label


@TRANSFORMS.register("cutout")
def build(cfg: Config) -> Cutout:
    """Build the transform from ``EXTRA.CUTOUT``, for the data set that is trained on."""
    settings = extra_section(cfg, "CUTOUT")
    dataset = find_dataset(cfg.DATASETS.TRAIN[0], cfg.DATASETS.CUSTOM)
    return Cutout(settings.PROB, settings.SIDE, dataset.ignore_label)
