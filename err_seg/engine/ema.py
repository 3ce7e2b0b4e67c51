"""A moving average of the weights. It is evaluated, and kept at the end, in place of the weights themselves."""

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

from err_seg.engine.optimizer import shared_like, whole


class WeightAverage:
    """The exponential moving average of a model's trainable weights, divided over processes in the same way.

    Args:
        model: the average starts from its present weights.
        decay: weight of the old average when a new one is computed after each iteration.
    """

    def __init__(self, model: nn.Module, decay: float):
        self._parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self._averages = {name: p.detach().clone() for name, p in self._parameters.items()}
        self._update = get_ema_multi_avg_fn(decay)

    def update(self) -> None:
        """Update the average with the present weights."""
        averages, parameters = (
            [t.to_local() if isinstance(t, DTensor) else t for t in tensors.values()]
            for tensors in (self._averages, self._parameters)
        )
        with torch.no_grad():
            self._update(averages, parameters, 0)

    def state(self) -> dict[str, Tensor]:
        """Return parameter name to average, whole and on the CPU; all processes must call this."""
        return {name: whole(average).cpu() for name, average in self._averages.items()}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Continue from a value of :meth:`state`; from the present weights if it is empty."""
        for name, value in state.items():
            self._averages[name].copy_(shared_like(value, self._parameters[name]))
