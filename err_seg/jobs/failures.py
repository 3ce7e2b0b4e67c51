"""Whether an error of the network concerns one image, the batch, or everything."""

import torch


class DeviceError(RuntimeError):
    """A device that failed and no longer computes; the message names it and the reason."""


def is_out_of_memory(error: Exception) -> bool:
    """Whether an error says that the machine or a device is out of memory."""
    signs = ("DefaultCPUAllocator", "out of memory", "ALLOC_FAILED")
    is_memory = isinstance(error, (torch.OutOfMemoryError, MemoryError))
    return is_memory or (isinstance(error, RuntimeError) and any(sign in str(error) for sign in signs))


def check_device(device: torch.device, reason: str) -> None:
    """Check after an error that a device still computes; after a failed assertion, for example, it never does.

    Raises:
        DeviceError: it does not.
    """
    try:
        torch.ones(1, device=device).add_(1).item()
    except Exception as error:
        if not is_out_of_memory(error):
            raise DeviceError(f"the device {device} failed and no longer computes ({reason})") from error


def reason_of(error: Exception) -> str:
    """Return an error's type and the first line of its message."""
    return f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}".removesuffix(": ")
