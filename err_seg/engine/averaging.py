"""A moving average of the weights, which is what is evaluated and kept in the end."""

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

from err_seg.engine.optimizer import shared_like, whole


class WeightAverage:
    """The exponential moving average of a model's trainable weights, shared out over processes as they are.

    Args:
        model: whose weights now are where the average begins.
        decay: share of the average that stays when the weights of another iteration come in.
    """

    def __init__(self, model: nn.Module, decay: float):
        self._parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self._averages = {name: p.detach().clone() for name, p in self._parameters.items()}
        self._update = get_ema_multi_avg_fn(decay)

    def update(self) -> None:
        """Let the present weights in."""
        averages, parameters = (
            [t.to_local() if isinstance(t, DTensor) else t for t in tensors.values()]
            for tensors in (self._averages, self._parameters)
        )
        with torch.no_grad():
            self._update(averages, parameters, 0)

    def state(self) -> dict[str, Tensor]:
        """Return parameter name to average, whole and on the CPU; all processes must ask."""
        return {name: whole(average).cpu() for name, average in self._averages.items()}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Go on from a :meth:`state`; where it is empty, from the weights as they are."""
        for name, value in state.items():
            self._averages[name].copy_(shared_like(value, self._parameters[name]))
