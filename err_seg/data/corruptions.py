"""The 15 corruptions of ImageNet-C in five severities (Hendrycks and Dietterich, 2019), by imagecorruptions."""

import hashlib
from importlib.util import find_spec

import numpy as np
from numpy.typing import NDArray

from err_seg.utils.errors import ConfigError

SEEDED = ("impulse_noise", "glass_blur")
"""Those that take their seed as an argument; the others draw from NumPy's global state."""
SMALLEST = 32
"""The shortest side of an image that the package takes, in pixels."""


def require_package() -> None:
    """Raise a ConfigError unless the package can be found."""
    if find_spec("imagecorruptions") is None:
        raise ConfigError(
            "TEST.CORRUPTION.NAME needs the package imagecorruptions-imaug; install it with: "
            "pip install 'err_seg[corruptions]'"
        )


def corrupt(image: NDArray[np.uint8], name: str, severity: int) -> NDArray[np.uint8]:
    """Corrupt an image; the same image is always corrupted in the same way.

    Args:
        image: (H, W, 3) uint8 RGB, at least 32 pixels a side.
        name: one of :data:`err_seg.config.constants.CORRUPTIONS`.
        severity: 1..5.

    Raises:
        ValueError: the image is smaller.
    """
    from imagecorruptions import corrupt as corrupt_by_package  # takes seconds

    height, width = image.shape[:2]
    if min(height, width) < SMALLEST:
        raise ValueError(f"an image of {width}x{height} pixels cannot be corrupted; it needs {SMALLEST} pixels a side")
    digest = hashlib.sha256(f"{name} {severity}".encode() + np.ascontiguousarray(image).tobytes()).digest()
    seed, state = int.from_bytes(digest[:4], "big"), np.random.get_state()  # noqa: NPY002  # what the package draws from
    np.random.seed(seed)  # noqa: NPY002
    try:
        return corrupt_by_package(image, severity, name, **({"seed": seed} if name in SEEDED else {}))
    finally:
        np.random.set_state(state)  # noqa: NPY002
