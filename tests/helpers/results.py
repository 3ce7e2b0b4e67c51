"""A result of random maps."""

import torch

from err_seg import Segmentation


def a_result(num_classes=7, num_kept=4, size=(48, 80), side=16):
    generator = torch.Generator().manual_seed(0)
    return Segmentation(
        probabilities=torch.rand(num_kept, side, side, generator=generator),
        kept=torch.randperm(num_classes, generator=generator)[:num_kept].sort().values,
        vocabulary=tuple(f"thing {i}" for i in range(num_classes)),
        size=size,
        class_scores=torch.rand(num_classes, generator=generator),
    )
