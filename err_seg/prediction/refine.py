"""Refined borders: the fast guided filter, by which the network's maps follow the edges of the image.

Near every place a refined map is a linear function of the image's colours, fitted to the network's map at the network's
own resolution (He et al., "Guided Image Filtering", 2013; He and Sun, "Fast Guided Filter", 2015). Only the
coefficients of these functions are resized, and so the borders are as sharp as the image.
"""

from dataclasses import dataclass, fields

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from err_seg.modeling.layers import resized_part
from err_seg.prediction.segmentation import Segmentation, fitted

RADIUS = 4
"""Half the side of the windows that functions are fitted in, in places of the network's map."""
EPSILON = 1e-3
"""How much variance of the colours, in 0..1, is taken for noise and not for an edge."""


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class RefinedSegmentation(Segmentation):
    """A result whose borders follow those of the image.

    Attributes:
        guide: (3, h, w) uint8 RGB, the image.
        coefficients: (4, K, ...) of the size of ``probabilities``: factors of red, green and blue in 0..1, and what is
            added.
    """

    guide: Tensor
    coefficients: Tensor

    @property
    def image(self) -> np.ndarray:
        """(H, W, 3) uint8 RGB: the image that was labelled, at the result's size."""
        return fitted(self.guide, self.size)

    def _resized(self, classes: slice, rows: slice) -> Tensor:
        """Some maps (k, rows, W): all columns of some rows."""
        colours = resized_part(self.guide, self.size, rows, slice(0, self.size[1])).to(self.coefficients.device) / 255
        *factors, added = (coefficients[classes] for coefficients in self.coefficients)
        maps = self._enlarged(added, rows)
        for factor, colour in zip(factors, colours, strict=True):
            maps = torch.addcmul(maps, self._enlarged(factor, rows), colour)
        return maps.clamp_(0, 1)


def refined(result: Segmentation, image: Tensor) -> RefinedSegmentation:
    """Let the borders of a result follow those of its image (3, h, w), uint8 RGB."""
    maps = result.probabilities
    height, width = maps.shape[1:]
    pixels = np.ascontiguousarray(image.permute(1, 2, 0).cpu().numpy())
    small = torch.from_numpy(cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA))
    coefficients = fit(small.permute(2, 0, 1).to(maps.device).float() / 255, maps)
    of_network = {field.name: getattr(result, field.name) for field in fields(Segmentation)}
    return RefinedSegmentation(**of_network, guide=image, coefficients=coefficients)


def fit(colours: Tensor, maps: Tensor) -> Tensor:
    """Fit maps (K, h, w) by linear functions of colours (3, h, w) in every window; return coefficients (4, K, h, w).

    The coefficients at a place are the mean over all windows that contain it.
    """
    mean_colours, mean_maps = local_mean(colours), local_mean(maps)
    variance = local_mean(colours[:, None] * colours) - mean_colours[:, None] * mean_colours  # 3×3×h×w
    covariance = local_mean(colours[:, None] * maps) - mean_colours[:, None] * mean_maps  # 3×K×h×w
    noise = EPSILON * torch.eye(3, device=maps.device)
    factors = torch.linalg.solve(variance.permute(2, 3, 0, 1) + noise, covariance.permute(2, 3, 0, 1))
    factors = factors.permute(2, 3, 0, 1)
    added = mean_maps - (factors * mean_colours[:, None]).sum(dim=0)
    return local_mean(torch.cat([factors, added[None]]))


def local_mean(maps: Tensor) -> Tensor:
    """Average maps (..., h, w) over the window around every place, as far as it lies within them."""
    flat = maps.reshape(-1, 1, *maps.shape[-2:])
    means = F.avg_pool2d(flat, 2 * RADIUS + 1, stride=1, padding=RADIUS, count_include_pad=False)
    return means.view(maps.shape)
