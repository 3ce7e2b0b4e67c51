"""Calibrated confidence: how probable it is that a pixel's label is right."""

import math
from dataclasses import dataclass

from torch import Tensor

NARROWEST = 1 / 6000
"""Leads closer to 0 or 1 than this count as this: half a bin of the counts that are fitted."""


@dataclass(frozen=True)
class Calibration:
    """Turns :attr:`ClassMaps.lead` into confidence: sigmoid(logit(lead) / temperature + offset) (Platt, 1999).

    It holds for images and vocabularies such as those that it was fitted on.

    Attributes:
        temperature: above 0.
        offset: added to the logit.
        datasets: names of the labelled data sets that both were fitted on.
        images: how many there were.
        sha256: of the file that held these weights without a calibration.

    Raises:
        ValueError: the temperature is not above 0, or a number is not finite.
    """

    temperature: float
    offset: float
    datasets: str = ""
    images: int = 0
    sha256: str | None = None

    def __post_init__(self) -> None:
        if not (0 < self.temperature < math.inf and math.isfinite(self.offset)):
            raise ValueError(f"temperature {self.temperature} must be above 0, and offset {self.offset} finite")

    def __str__(self) -> str:
        """Return one line."""
        numbers = f"temperature {self.temperature:.3f}, offset {self.offset:.3f}"
        return f"{numbers}, fitted on {self.images} images of {self.datasets}"

    def confidence(self, lead: Tensor) -> Tensor:
        """Return the probabilities, in 0..1, that labels with these leads are right; both of any one shape."""
        return (lead.logit(NARROWEST) / self.temperature + self.offset).sigmoid()
