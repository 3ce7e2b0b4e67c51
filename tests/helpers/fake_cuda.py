"""Networks on a CUDA device that is not there: shapes, types and devices of everything, without any numbers."""

from contextlib import contextmanager

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

import err_seg

CUDA = torch.device("cuda", 0)
INITIALISERS = ("trunc_normal_", "normal_", "uniform_", "kaiming_uniform_", "xavier_uniform_", "kaiming_normal_")


class NoWaiting(TorchDispatchMode):
    """Refuse what makes the host wait for the device: numbers read back, and shapes that depend on numbers."""

    FORBIDDEN = ("_local_scalar_dense", "nonzero", "masked_select", "bincount", "unique", "item", "equal")

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func._overloadpacket.__name__
        assert not name.startswith(self.FORBIDDEN), f"{name} waits for the device"
        if name in ("index", "index_put", "index_put_"):
            by_mask = [i for i in args[1] if i is not None and i.dtype in (torch.bool, torch.uint8)]
            assert not by_mask, f"{name} by a mask waits for the device"
        result = func(*args, **(kwargs or {}))
        if name in ("_to_copy", "copy_"):
            source = args[1] if name == "copy_" else args[0]
            copied_back = source.device.type != "cpu" and result.device.type == "cpu"
            assert not copied_back, f"{name} from the device waits for it"
        return result


@pytest.fixture
def fake_cuda(monkeypatch):
    """Make new tensors fake, "cuda" a device and autocast available there, for the time of a test."""
    # at its first call autograd starts a thread for each device, and no process with such threads may be forked
    torch.ones(1, requires_grad=True).sum().backward()
    monkeypatch.setattr(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: (9, 0))
    with FakeTensorMode() as mode:
        yield mode


@contextmanager
def without_initialisation():
    """Leave weights as they are in memory: drawing those of a large network takes seconds."""
    with pytest.MonkeyPatch.context() as patch:
        for name in INITIALISERS:
            patch.setattr(nn.init, name, lambda tensor, *_, **__: tensor)
        yield


def build_shape(cfg):
    """Build a network that has shapes only, on the device "meta"."""
    cfg = cfg.clone()
    cfg.MODEL.DEVICE = "meta"
    with without_initialisation():
        return err_seg.build_model(cfg)


def move_to_fake(model, device=CUDA):
    """Give each parameter and buffer of a network a fake one in its place (within ``FakeTensorMode``)."""
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                fake = torch.empty(parameter.shape, dtype=parameter.dtype, device=device)
                module._parameters[name] = nn.Parameter(fake, parameter.requires_grad)
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype, device=device)
    return model
