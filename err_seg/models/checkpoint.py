"""Weights on disk: saving our own, and strict, never-unpickling loading of our own and of released checkpoints."""

import json
import os
import pickle
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from err_seg.models.checkpoint_names import current_name, current_names
from err_seg.plugins import imported_packages
from err_seg.prediction.calibration import Calibration
from err_seg.utils.device import all_finite
from err_seg.utils.files import atomic_write, cache_dir, file_sha256, file_signature, is_safetensors, write_text
from err_seg.utils.fingerprint import WeightsSource, fingerprint, is_settled, weights_digest
from err_seg.utils.messages import listed
from err_seg.version import __version__

PART = re.compile(r".*-\d+-of-\d+\.\w+|.*\.index\.json")  # names in a checkpoint that was split into several files
DIFFERENCES_SHOWN = 4  # of each kind
POINTER = b"version https://git-lfs.github.com/"  # how a file begins that Git LFS puts in place of a large one


class CheckpointError(ValueError):
    """A checkpoint that cannot be read or does not fit; the message names the file and the differences."""


class HubError(ValueError):
    """A model that cannot be found, fetched or trusted; the message says which file to put where."""


class ChecksumError(CheckpointError, HubError):
    """A file that is not the expected one; nothing in it was read."""


@dataclass(frozen=True)
class Checkpoint:
    """What a file of weights holds.

    Attributes:
        entries: tensors by their name in the file.
        others: whatever else a torch file holds, by name: the iteration, the state of the optimizer.
        metadata: of a safetensors file: the configuration, the iteration.
        source: the file.
    """

    entries: Mapping[str, Any]
    others: Mapping[str, Any]
    metadata: Mapping[str, str]
    source: WeightsSource

    @property
    def weights(self) -> dict[str, Any]:
        """The tensors by today's name (:func:`current_name`)."""
        return current_names(self.entries)

    @property
    def calibration(self) -> Calibration | None:
        """What the metadata say of confidence; ``None`` if nothing.

        Raises:
            CheckpointError: it cannot be read.
        """
        if "calibration" not in self.metadata:
            return None
        try:
            return Calibration(**json.loads(self.metadata["calibration"]))
        except (ValueError, TypeError) as error:
            raise CheckpointError(
                f"{self.source.file}: the calibration stored in it cannot be read ({reason_of(error)}); write it anew "
                "with: err-seg calibrate"
            ) from error


def save_weights(
    model: nn.Module | Mapping[str, Tensor], file: str | Path, metadata: Mapping[str, Any] | None = None
) -> None:
    """Write the model's weights as safetensors, complete or not at all, with the versions of all imported packages.

    Args:
        model: the model whose state is written, or a state dictionary.
        file: where to write; its folder is made.
        metadata: JSON-able facts to keep beside the weights (configuration, iteration, ...).
    """
    packages = imported_packages()
    own = {"packages": packages, **(metadata or {})} if packages else metadata or {}
    facts = {"err_seg_version": __version__, **{key: json.dumps(value) for key, value in own.items()}}
    entries = model if isinstance(model, Mapping) else model.state_dict()
    # copies, since safetensors refuses tied weights
    state = {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in entries.items()}
    with atomic_write(file) as temporary:
        save_file(state, temporary, metadata=facts)


def load_weights(model: nn.Module, source: str | Path | Checkpoint | Mapping[str, Any]) -> None:
    """Load all weights of the model, strictly: the entries and the model's names must be exactly the same.

    ``model.source`` and ``model.calibration`` are then the file's; ``None`` after a state dictionary.

    Args:
        model: an ``ERRSeg``.
        source: a ``.safetensors`` file of ours, a released (detectron2) ``.pth`` file, what :func:`open_checkpoint`
            read of either, or a state dictionary with the names of either. Pickled files are read with
            ``weights_only=True``: nothing in them is executed.

    Raises:
        CheckpointError: the file cannot be read, or entries differ from the model's; lists the differences.
    """
    if isinstance(source, Mapping):
        state, origin, calibration = _entries(source), None, None
    else:
        checkpoint = source if isinstance(source, Checkpoint) else open_checkpoint(Path(source))
        state, origin, calibration = checkpoint.entries, checkpoint.source, checkpoint.calibration
    model.load_state_dict(fitting_state(model, state, origin.file if origin else "the state dictionary"), strict=True)
    # torch declares that modules hold nothing but tensors and modules
    vars(model).update(source=origin, calibration=calibration)


def fitting_state(model: nn.Module, state: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return a state dictionary, under names of any kind (:func:`current_name`), as one that fits the model.

    Raises:
        CheckpointError: it does not fit, or holds NaN or infinity; lists where, with ``name`` saying what was read.
    """
    state = current_names(state)
    check_shapes(model, state, name)
    if wrong := [key for key, value in state.items() if not all_finite(value)]:
        raise CheckpointError(
            f"{name} holds NaN or infinity in {len(wrong)} of {len(state)} entries, which would make every result "
            f"wrong; nothing was loaded. Use an earlier checkpoint. The entries: {listed(wrong)}"
        )
    return state


def check_shapes(model: nn.Module, state: Mapping[str, Any], name: str) -> None:
    """Compare entries, by today's name, with those of a model, also one on the device "meta"; errors are as above."""
    expected = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    found = {key: tuple(v.shape) if isinstance(v, Tensor) else type(v).__name__ for key, v in state.items()}
    unequal = (key for key in expected.keys() & found.keys() if expected[key] != found[key])
    differences = {
        "of another shape": {k: f": the model has {expected[k]}, the checkpoint {found[k]}" for k in unequal},
        "missing": {key: f" {expected[key]}" for key in expected.keys() - found.keys()},
        "not in the model": {key: f" {found[key]}" for key in found.keys() - expected.keys()},
    }
    if number := sum(map(len, differences.values())):
        lines = [line for kind, entries in differences.items() for line in _some(kind, entries)]
        raise CheckpointError(
            "\n  ".join([f"{name} does not fit the model; nothing was loaded. {number} differences:", *lines])
            + "\nIs it a checkpoint of another size (MODEL.CLIP.NAME), or of other MODEL settings?"
        )


def _some(kind: str, entries: Mapping[str, str]) -> Iterator[str]:
    """Yield the first differences of a kind, how many more there are, and the modules that all of them begin with."""
    yield from (f"{kind}: {key}{entries[key]}" for key in sorted(entries)[:DIFFERENCES_SHOWN])
    if len(entries) > DIFFERENCES_SHOWN:
        modules = zip(*(key.split(".")[:-1] for key in entries), strict=False)
        prefix = "".join(f"{names[0]}." for names in takewhile(lambda names: len(set(names)) == 1, modules))
        yield f"{kind}: {len(entries) - DIFFERENCES_SHOWN} more" + (f"; all begin with {prefix!r}" if prefix else "")


def _entries(content: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the weights among the content of a torch file, which may hold other things beside its ``model``."""
    return content["model"] if isinstance(content.get("model"), Mapping) else content


def open_checkpoint(file: Path, sha256: str | None = None) -> Checkpoint:
    """Read all that a safetensors or torch file holds, without executing anything in it.

    ``sha256`` is the checksum that is expected, in hexadecimal digits.

    Raises:
        CheckpointError: no such file, a damaged one, one that changes meanwhile, or a pickle that holds more than
            tensors and plain values.
        ChecksumError: it has another checksum.
    """
    metadata: dict[str, str] = {}
    with _errors_named(file):
        signature = file_signature(file)
        source = WeightsSource(str(file), checked_sha256(file, sha256))
        content: Any
        if is_safetensors(file):
            with safe_open(file, framework="pt") as weights:
                # copied, since what it gives is read when it is used, and the file may be another by then
                content = {name: weights.get_tensor(name).clone() for name in list(weights.keys())}
                metadata = weights.metadata() or {}
        else:
            content = torch.load(file, map_location="cpu", weights_only=True)
        if file_signature(file) != signature:
            raise CheckpointError(f"{file} changed while it was read; read it again")
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{file} holds a {type(content).__name__}, not a dictionary of tensors")
    entries = _entries(content)
    others = {} if entries is content else {name: value for name, value in content.items() if name != "model"}
    return Checkpoint(entries, others, metadata, source)


def checked_sha256(file: Path, expected: str | None) -> str:
    """Return a file's checksum in hexadecimal digits.

    Raises:
        ChecksumError: another one was expected.
        OSError: it cannot be read.
    """
    found = file_sha256(file)
    if expected is not None and found != expected.strip().lower():
        raise ChecksumError(
            f"{file} has the SHA-256 {found}, expected {expected}; it was not read. It may be damaged or another file: "
            "fetch it again, or correct the checksum"
        )
    return found


def weights_file_digest(file: str | os.PathLike[str]) -> str:
    """Hash the tensors in a file of weights as :func:`weights_digest` does; metadata and file format do not count.

    The digest is remembered in the cache folder under the file's path and signature.

    Raises:
        CheckpointError: the file cannot be read.
    """
    path = Path(file).resolve()
    with _errors_named(path):
        signature = file_signature(path)
    known = cache_dir() / "digests" / fingerprint({"path": str(path), "signature": signature})
    with suppress(OSError, ValueError):
        if re.fullmatch("[0-9a-f]{32}", digest := known.read_text(encoding="ascii")):
            return digest
    # by the name that was given, which tells the format; a link's target may not
    digest = weights_digest(open_checkpoint(Path(file)).weights)
    if is_settled(signature) and file_signature(path) == signature:
        with suppress(OSError):  # without this the digest is only computed again
            write_text(known, digest)
    return digest


def read_shapes(file: Path) -> dict[str, tuple[int, ...]]:
    """Return the shape of every tensor by today's name, without reading the tensors where the format allows it.

    Raises:
        CheckpointError: as for :func:`open_checkpoint`.
    """
    with _errors_named(file):
        if is_safetensors(file):
            with safe_open(file, framework="pt") as weights:
                return {current_name(key): tuple(weights.get_slice(key).get_shape()) for key in list(weights.keys())}
    content: Any = None
    with suppress(Exception):  # damaged, or in torch's format before version 1.6, which cannot be mapped
        content = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    entries = _entries(content) if isinstance(content, Mapping) else open_checkpoint(file).entries
    return {name: tuple(value.shape) for name, value in current_names(entries).items() if isinstance(value, Tensor)}


@contextmanager
def _errors_named(file: Path) -> Iterator[None]:
    """Turn the errors of a ``with`` block that reads a file into :class:`CheckpointError`."""
    if not file.is_file():
        raise CheckpointError(f"no checkpoint {file}{': it is a folder; name a file in it' if file.is_dir() else ''}")
    if PART.fullmatch(file.name):
        raise CheckpointError(
            f"{file} belongs to a checkpoint in several files, expected a single one; read them with the program that "
            "wrote them, and save their tensors to one file with err_seg.save_weights"
        )
    try:
        with open(file, "rb") as stream:
            if stream.read(len(POINTER)) == POINTER:
                raise CheckpointError(f"{file} only points to the weights; fetch them with: git lfs pull")
        yield
    except CheckpointError:
        raise
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{file} is no checkpoint, is damaged, or holds more than tensors and plain values; it was not read, since "
            "unpickling could run any program. Of a checkpoint, save the 'model' dictionary alone, best as safetensors"
        ) from error
    except Exception as error:  # a damaged file can make a reader fail in any way
        raise CheckpointError(f"{file} is damaged or not a checkpoint: {reason_of(error)}") from error


def reason_of(error: Exception) -> str:
    """Return an error's kind and the first line of its message."""
    return f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}".removesuffix(": ")
