"""Calibrated confidence: how probable it is that a pixel's label is right."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor

NARROWEST = 1 / 6000
"""Leads closer to 0 or 1 than this count as this, since so wide is half a bin of the counts that are fitted."""


@dataclass(frozen=True)
class Calibration:
    """Turns :attr:`ClassMaps.lead` into confidence: sigmoid(logit(lead) / temperature + offset) (Platt, 1999).

    It holds for images and vocabularies such as those that it was fitted on.

    Attributes:
        temperature: above 0; from 1 on, it makes labels less certain.
        offset: added to the logit.
        datasets: names of the labelled data sets that both were fitted on.
        images: how many there were.
        sha256: of the file that held these weights without a calibration.
    """

    temperature: float
    offset: float
    datasets: tuple[str, ...] = ()
    images: int = 0
    sha256: str | None = None

    def __post_init__(self) -> None:
        if not (self.temperature > 0 and math.isfinite(self.temperature) and math.isfinite(self.offset)):
            raise ValueError(f"temperature {self.temperature} must be above 0, and offset {self.offset} finite")

    def __str__(self) -> str:
        """Return one line."""
        return (
            f"temperature {self.temperature:.3f} and offset {self.offset:.3f}, fitted on {self.images} images of "
            f"{', '.join(self.datasets)}"
        )

    def confidence(self, lead: Tensor) -> Tensor:
        """Return the probabilities, in 0..1, that labels with these leads are right; both of any one shape."""
        return (lead.logit(NARROWEST) / self.temperature + self.offset).sigmoid()

    def facts(self) -> dict[str, Any]:
        """Return the attributes by name, JSON-able."""
        return asdict(self)

    @classmethod
    def of_facts(cls, facts: Mapping[str, Any]) -> "Calibration":
        """Make one from :meth:`facts`, as JSON holds them; ValueError, TypeError or KeyError if they make none."""
        return cls(**{**facts, "datasets": tuple(facts["datasets"])})
