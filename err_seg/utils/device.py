"""Where the network computes and how exactly: device, precision, TF32 and deterministic algorithms."""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor

from err_seg.utils.errors import ConfigError, NonFiniteError
from err_seg.utils.locks import fork_safe_lock

PRECISIONS = {"fp32": None, "fp16": torch.float16, "bf16": torch.bfloat16}
NATIVE_BF16_SINCE = (8, 0)  # compute capability


class Precision(NamedTuple):
    """A key of ``PRECISIONS``, and why it was chosen."""

    name: str
    reason: str


def resolve_device(device: str) -> torch.device:
    """Turn ``MODEL.DEVICE`` into a device; "auto" is CUDA, else MPS, else the CPU.

    Raises:
        ConfigError: no such device, or it is not available.
    """
    if device == "auto":
        return torch.device(
            "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
        )
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f'MODEL.DEVICE: cannot use {device!r} ({reason}); "auto" takes what is there') from error
    return torch.device(device)


def own_device(device: str) -> str:
    """Return this process's own device; a command must call this before it puts anything on a GPU.

    With "auto" or "cuda", each of several processes on a machine gets its own GPU. It becomes CUDA's current device,
    since otherwise pinned memory and the like would take a few 100 MB of the first GPU.
    """
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device in ("auto", "cuda") and "LOCAL_RANK" in os.environ and count:
        device = f"cuda:{int(os.environ['LOCAL_RANK']) % count}"
    index = device.removeprefix("cuda:")
    if index.isdecimal() and int(index) < count:  # resolve_device reports what is wrong with any other
        torch.cuda.set_device(int(index))
    return device


def resolve_precision(precision: str, device: torch.device) -> Precision:
    """Turn "auto" into bf16 on GPUs that compute it natively, fp16 on other GPUs, and fp32 elsewhere.

    bf16 has the range of fp32, so that neither the network nor its gradients overflow. A GPU that only emulates it
    takes as long as it does with fp32.
    """
    if precision != "auto":
        return Precision(precision, "as configured")
    if device.type != "cuda":
        return Precision("fp32", f"auto: lower precisions gain nothing on {device.type}")
    if torch.version.hip or torch.cuda.get_device_capability(device) >= NATIVE_BF16_SINCE:
        return Precision("bf16", "auto: this GPU computes bf16 natively")
    return Precision("fp16", "auto: this GPU would only emulate bf16")


def upload(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy a tensor to a device; from the CPU to CUDA through pinned memory, so that nothing waits for the device."""
    if device.type != "cuda" or tensor.device.type != "cpu":
        return tensor.to(device)
    pinned = tensor if tensor.is_pinned() else torch.empty_like(tensor, pin_memory=True).copy_(tensor)
    return pinned.to(device, non_blocking=True)


def all_finite(values: Tensor) -> bool:
    """Whether none of the values is NaN or infinity; in one pass that takes no memory, unlike ``isfinite``."""
    return not values.numel() or bool(torch.stack(torch.aminmax(values)).isfinite().all())


def check_finite(values: Tensor, what: str) -> Tensor:
    """Return what a network computed, in about -1..1, or raise :class:`NonFiniteError` if it holds NaN or infinity."""
    if not values.sum().isfinite():
        raise NonFiniteError(
            f"{what} NaN or infinity: the weights are damaged, or too large for this precision. Use other weights, or "
            "the precision fp32 (precision=, --precision)"
        )
    return values


def autocast(device: torch.device, dtype: torch.dtype | None) -> AbstractContextManager:
    """Return autocast to ``dtype`` on a device; ``None`` is full precision, also within another autocast.

    Weights are cast at every use. Torch's cache of cast weights is shared by all threads: one thread would get weights
    in another's precision, or without gradient.
    """
    if not torch.amp.is_autocast_available(device.type):
        return nullcontext()
    return torch.autocast(device.type, dtype=dtype, enabled=dtype is not None, cache_enabled=False)


_matmul: Any = torch.backends.cuda.matmul
_cudnn: Any = torch.backends.cudnn
# since torch 2.9 every operation has its own setting, and once one of these is set, the older two cannot be read
_HAS_FP32_PRECISION = hasattr(_matmul, "fp32_precision")
_tf32_lock = fork_safe_lock()
_tf32_asked: dict[object, tuple[Any, Any]] = {}


@contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    """Let CUDA compute fp32 products and convolutions in TF32 (10 bits of mantissa), or not, for a ``with`` block.

    By default torch allows it for convolutions and forbids it for matrix products. The setting holds for the whole
    process: if blocks overlap, in threads or nested, the one entered last counts, and the last one to end restores what
    was set before.
    """
    value = ("tf32" if allowed else "ieee") if _HAS_FP32_PRECISION else allowed
    block = object()
    with _tf32_lock:
        _tf32_asked.setdefault(None, read_tf32())  # what was set before
        _tf32_asked[block] = value, value
        _write_tf32((value, value))
    try:
        yield
    finally:
        with _tf32_lock:
            del _tf32_asked[block]
            _write_tf32(list(_tf32_asked.values())[-1])
            if len(_tf32_asked) == 1:
                _tf32_asked.clear()


def read_tf32() -> tuple[Any, Any]:
    """Return torch's settings for matrix products and convolutions: "tf32", "ieee" or "none"; bools before 2.9."""
    if _HAS_FP32_PRECISION:
        return _matmul.fp32_precision, _cudnn.conv.fp32_precision
    return _matmul.allow_tf32, _cudnn.allow_tf32


def _write_tf32(values: tuple[Any, Any]) -> None:
    if _HAS_FP32_PRECISION:
        _matmul.fp32_precision, _cudnn.conv.fp32_precision = values
    else:
        _matmul.allow_tf32, _cudnn.allow_tf32 = values


@contextmanager
def deterministic(enabled: bool) -> Iterator[None]:
    """Use torch's deterministic algorithms during a ``with`` block; ``False`` changes nothing."""
    if not enabled:
        yield
        return
    workspace = os.environ.get("CUBLAS_WORKSPACE_CONFIG")
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS is deterministic only with this
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    benchmark, torch.backends.cudnn.benchmark = torch.backends.cudnn.benchmark, False
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        torch.backends.cudnn.benchmark = benchmark
        if workspace is None:
            del os.environ["CUBLAS_WORKSPACE_CONFIG"]
