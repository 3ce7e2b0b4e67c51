"""What identifies an image, a set of weights and a setting, wherever results are kept, reused or compared.

================  ==================================================================================================
an image          :func:`file_digest` of its content. :func:`file_signature` of its file may spare the digest: if it
                  equals an earlier :func:`is_settled` one of the same path, the file was not written to since.
a set of weights  :func:`weights_digest` of its tensors, by name; ``weights_file_digest`` of a file.
a setting         :func:`fingerprint` of everything that results depend on, as JSON-able facts.
================  ==================================================================================================

A result is reused only for the same image, weights and settings, and the same ``RESULT_FORMAT``.
"""

import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from err_seg.utils.files import hash_file

RESULT_FORMAT = 2
"""Version of results. Raise it whenever the same image, weights and settings would give another result, or a file of
results changes its meaning: earlier versions' results are then computed again, not taken for this version's."""

_DIGEST_BYTES = 16
_SETTLED_AFTER_NS = 2_000_000_000  # the coarsest clock among file systems in use, that of FAT


@dataclass(frozen=True)
class WeightsSource:
    """Where the weights of a model were read from.

    Attributes:
        file: path on this machine; of a repository, the path within it.
        sha256: of the file, in hexadecimal digits.
        repository: on the Hugging Face hub, if it came from there.
        revision: the commit of the repository.
    """

    file: str
    sha256: str
    repository: str | None = None
    revision: str | None = None

    def __str__(self) -> str:
        """Return one line."""
        place = f" of {self.repository} at {self.revision}" if self.repository else ""
        return f"{self.file}{place}, SHA-256 {self.sha256}"

    def facts(self) -> dict[str, str | None]:
        """Return the attributes by name, JSON-able."""
        return asdict(self)


def fingerprint(facts: Mapping[str, Any]) -> str:
    """Hash a setting, JSON-able facts in any order, and ``RESULT_FORMAT``: 32 hexadecimal digits."""
    return content_digest(json.dumps({"format": RESULT_FORMAT, "facts": facts}, sort_keys=True).encode())


def content_digest(data: bytes) -> str:
    """Hash the content of a file that is not on disk; equal to :func:`file_digest` of one that is."""
    return hashlib.blake2b(data, digest_size=_DIGEST_BYTES).hexdigest()


def file_digest(path: str | os.PathLike[str]) -> str:
    """Hash a file's content: 32 hexadecimal digits.

    Raises:
        OSError: it cannot be read.
    """
    return hash_file(path, hashlib.blake2b(digest_size=_DIGEST_BYTES))


def is_settled(signature: list[int]) -> bool:
    """Whether a signature that was taken just now can later prove that the file is unchanged.

    A file that changes twice within one tick of the clock keeps its signature. So the signature of a file that changed
    just now, or in the future by another machine's clock, proves nothing.
    """
    return max(signature[1:]) + _SETTLED_AFTER_NS < time.time_ns()


def weights_digest(weights: nn.Module | Mapping[str, Any]) -> str:
    """Hash names, shapes, types and values of all tensors, bit for bit, to 32 hexadecimal digits.

    They are the same on every device. ``weights`` are a network (its state dictionary is hashed), or a dictionary of
    tensors and, possibly, of further such dictionaries; values that are not tensors do not count.
    """
    digest = hashlib.blake2b(digest_size=_DIGEST_BYTES)
    tensors = weights.state_dict() if isinstance(weights, nn.Module) else weights
    for name, tensor in sorted(_tensors(tensors)):
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def tensor_versions(module: nn.Module) -> tuple[tuple[int, int], ...]:
    """Return what changes when a tensor of a module is replaced or written to, but by a fused optimizer."""
    return tuple((t.data_ptr(), 0 if t.is_inference() else t._version) for t in module.state_dict().values())


def _tensors(entries: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    for name, value in entries.items():
        if isinstance(value, Tensor):
            yield f"{prefix}{name}", value
        elif isinstance(value, Mapping):
            yield from _tensors(value, f"{prefix}{name}.")
