"""What failed: one input, or the device and with it everything."""

from dataclasses import dataclass

import torch

from err_seg.jobs.result_names import printable
from err_seg.models.checkpoint import reason_of


class DeviceError(RuntimeError):
    """A device that failed and no longer computes; the message names it and the reason."""


@dataclass(frozen=True)
class Problem:
    """An input that could not be used, and why."""

    source: str
    message: str


def problem_of(source: str, error: Exception, what: str) -> Problem:
    """Describe an error with an input: ``what`` happened, unless the memory was too small, and the error itself."""
    what = "too large for the memory" if is_out_of_memory(error) else what
    return Problem(source, printable(f"{source}: {what}: {reason_of(error)}"))


def is_out_of_memory(error: Exception) -> bool:
    """Whether an error says that the machine or a device is out of memory."""
    signs = ("DefaultCPUAllocator", "out of memory", "ALLOC_FAILED")
    is_memory = isinstance(error, (torch.OutOfMemoryError, MemoryError))
    return is_memory or (isinstance(error, RuntimeError) and any(sign in str(error) for sign in signs))


def check_device(device: torch.device, error: Exception) -> None:
    """Check that a device still computes after an error; after a failed assertion, for example, it never does.

    Raises:
        DeviceError: it does not.
    """
    try:
        torch.ones(1, device=device).add_(1).item()
    except Exception as failure:
        if not is_out_of_memory(failure):
            raise DeviceError(f"the device {device} failed and no longer computes ({reason_of(error)})") from failure
