"""Models by name or from a file: ``err_seg.load("err-seg-b")``, ``err_seg.load("model_final.safetensors")``.

A named model is a shipped configuration, and a place to get its weights from.
"""

import difflib
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import yaml
from huggingface_hub import HfApi, hf_hub_download, snapshot_download
from safetensors import SafetensorError, safe_open

from err_seg.build import build_compiled
from err_seg.checkpoint import CheckpointError, read_checkpoint
from err_seg.config import get_cfg, settings_of
from err_seg.files import cache_dir, file_sha256
from err_seg.mini.clip import ERR_SEG_WEIGHTS
from err_seg.modeling.err_seg import ERRSeg

Overrides = tuple[Any, ...]
WEIGHT_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")
HUB_SECONDS = 15


class HubError(ValueError):
    """A model that cannot be found, fetched or trusted; the message says which file to put where."""


@dataclass(frozen=True)
class NamedModel:
    """A configuration, and a place to get its weights from.

    Attributes:
        config: a shipped configuration.
        packaged: the file of weights that comes with the package, if one does.
        files: regular expression that finds its file in the repository, ignoring case.
        repository: the authors' repository on the Hugging Face hub.
    """

    config: str
    packaged: Path | None = None
    files: str = ""
    repository: str = "lchen1019/ERR-Seg"


MODELS: Mapping[str, NamedModel] = {
    "err-seg-b": NamedModel("err_seg_convnext_b", files=r"convnext[-_]?b|base|[-_]b([-_./]|$)"),
    "err-seg-l": NamedModel("err_seg_convnext_l", files=r"convnext[-_]?l|large|[-_]l([-_./]|$)"),
    "mini": NamedModel("mini/err_seg", packaged=ERR_SEG_WEIGHTS),
}

# the width of the image tower's stem tells the released models apart
STEM = "visual.trunk.stem.0.weight"
MODEL_OF_WIDTH = {128: "err-seg-b", 192: "err-seg-l"}


def model_names() -> tuple[str, ...]:
    """Return the names that :func:`load` knows: the released models, and "mini", which comes with the package."""
    return tuple(MODELS)


def load(
    model: str | os.PathLike[str],
    *,
    config: str | os.PathLike[str] | None = None,
    overrides: Sequence[Any] = (),
    device: str = "auto",
    precision: str | None = None,
    sha256: str | None = None,
    repository: str | None = None,
    filename: str | None = None,
    revision: str | None = None,
) -> ERRSeg:
    """Load a model in evaluation mode, ready to predict.

    Args:
        model: a name of :func:`model_names` (fetched once, then found in the cache without a network), or a file of
            weights: ours (``.safetensors``) or a released one (``.pth``). Nothing in a file is executed.
        config: a name of :func:`model_names`, a YAML file or the name of a shipped one; by default the one
            stored in the file itself (training stores its configuration there), else that of the released model whose
            width the weights have.
        overrides: KEY VALUE pairs that override the configuration.
        device: "auto", or a torch device.
        precision: "fp32", "fp16", "bf16" or "auto" (bf16 or fp16 on CUDA, else fp32); ``None``: the configuration's.
        sha256: the file's checksum in hexadecimal digits, to be checked before it is read.
        repository: another repository on the Hugging Face hub from which to fetch a named model.
        filename: the file in the repository; by default the only one named after the model's size.
        revision: branch, tag or commit of the repository.

    Raises:
        HubError: an unknown name, no such file, no network, several candidates, or the wrong checksum.
        ConfigError: the configuration cannot be used.
        CheckpointError: the weights cannot be read or do not fit; lists the differences.
    """
    name = os.fspath(model)
    options = [*overrides, "MODEL.DEVICE", device, *(("TEST.PRECISION", precision) if precision else ())]
    if name in MODELS:
        file = find_weights(name, repository=repository, filename=filename, revision=revision)
        config = name if config is None else config
    else:
        file = Path(name).expanduser()
        if not file.is_file():
            raise HubError(f"no model {name!r}: there is no such file, {_known_names(name)}")
    if sha256 is not None:
        check_sha256(file, sha256)
    base, settings = settings_of_file(file) if config is None else (config_of(config), ())
    return build_compiled(get_cfg(base, [*settings, *options, "MODEL.WEIGHTS", str(file)]))


def config_of(name: str | os.PathLike[str]) -> str:
    """Return the shipped configuration of a named model; any other name is returned as it is, for :func:`get_cfg`."""
    return MODELS[os.fspath(name)].config if os.fspath(name) in MODELS else os.fspath(name)


def settings_of_file(file: Path) -> tuple[str | None, Overrides]:
    """Find the configuration for a file of weights: the one stored in it, else the one that the tensors' width tells.

    Returns:
        A shipped configuration to start from, if any, and KEY VALUE pairs that override it.

    Raises:
        CheckpointError: the file cannot be read.
        HubError: neither way finds one.
    """
    text = None
    if file.suffix == ".safetensors":
        try:
            with safe_open(file, framework="pt") as weights:
                text = (weights.metadata() or {}).get("config")
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{file} is damaged or not a checkpoint: {error}") from error
    if text is not None:
        return None, tuple(_prediction_settings(text, file))
    widths = [len(tensor) for key, tensor in read_checkpoint(file).items() if key.endswith(STEM)]
    if len(widths) != 1 or widths[0] not in MODEL_OF_WIDTH:
        raise HubError(
            f"{file} does not say which network it belongs to; give its configuration: a YAML file, or one of "
            f"{', '.join(model_names())}"
        )
    return MODELS[MODEL_OF_WIDTH[widths[0]]].config, ()


def _prediction_settings(text: str, file: Path) -> Iterator[Any]:
    """Yield KEY and VALUE of a stored configuration's network settings; training settings are left out."""
    try:
        config = yaml.safe_load(json.loads(text))
        sections = {name: config[name] for name in ("MODEL", "INPUT")}
    except (ValueError, TypeError, KeyError, yaml.YAMLError) as error:
        raise CheckpointError(f"{file}: the configuration stored in it cannot be read; give one: {error}") from error

    # a file from elsewhere may decide whether there is a cache, but not where this machine writes it
    for key, value in settings_of(sections):
        yield from () if key == "MODEL.TEXT.CACHE_DIR" and value != "none" else (key, value)


def weights_dir() -> Path:
    """Return the folder where users put files by hand: ``$ERR_SEG_CACHE/weights``, else in ``~/.cache/err_seg``."""
    return cache_dir() / "weights"


def find_weights(
    name: str, *, repository: str | None = None, filename: str | None = None, revision: str | None = None
) -> Path:
    """Find the weights of a named model: in the package, in :func:`weights_dir`, in the hub's cache, or fetched now.

    Raises:
        HubError: they are not found; the message says which file to put where.
    """
    packaged = MODELS[name].packaged
    if packaged is not None:
        if any(value is not None for value in (repository, filename, revision)):
            raise HubError(f"{name!r} lies in the package: repository, filename and revision are for released models")
        if not packaged.is_file():
            raise HubError(
                f"the package lacks {packaged.name} in {packaged.parent}; install it again, or make the weights with: "
                "err-seg mini all --from-scratch --package"
            )
        return packaged
    by_hand = [weights_dir() / f"{name}{suffix}" for suffix in WEIGHT_SUFFIXES]
    if repository is None and filename is None and (found := [file for file in by_hand if file.is_file()]):
        return found[0]
    repository = repository or MODELS[name].repository
    try:
        filename = filename or choose_file(name, _files_of(repository, revision), repository)
        return Path(hf_hub_download(repository, filename, revision=revision, etag_timeout=HUB_SECONDS))
    except HubError:
        raise
    except Exception as error:  # the hub's client and the network libraries beneath it each raise their own
        raise HubError(
            f"could not fetch {filename or f'the checkpoint of {name}'} from https://huggingface.co/{repository} "
            f"({type(error).__name__}: {next(iter(str(error).splitlines()), '')}). Fetch it in any other way, and put "
            f"it at {weights_dir() / name}.pth (or .safetensors), or give its path instead of the name"
        ) from error


def choose_file(name: str, files: Iterable[str], repository: str) -> str:
    """Choose a model's file among the files of a repository.

    Raises:
        HubError: no file, or more than one, is named after the model's size; lists the candidates.
    """
    weights = sorted(file for file in files if file.endswith(WEIGHT_SUFFIXES))
    matching = [file for file in weights if re.search(MODELS[name].files, str(_stem(file)), re.IGNORECASE)]
    if len(matching) != 1:
        raise HubError(
            f"{len(matching)} files of https://huggingface.co/{repository} are named like {name}; choose one with "
            f"filename=... among: {', '.join(matching or weights) or 'none at all'}"
        )
    return matching[0]


def check_sha256(file: Path, expected: str) -> None:
    """Check that a file has the expected checksum.

    Raises:
        HubError: it has another one.
    """
    found = file_sha256(file)
    if found != expected.strip().lower():
        raise HubError(
            f"{file} has the SHA-256 {found}, expected {expected}; it was not read. It may be damaged or "
            "another file: fetch it again, or correct the checksum"
        )


def _stem(file: str) -> PurePosixPath:
    return PurePosixPath(file).with_suffix("")


def _files_of(repository: str, revision: str | None) -> list[str]:
    """List a repository's files; without a network, those in the cache."""
    try:
        info = HfApi().model_info(repository, revision=revision, timeout=HUB_SECONDS)
        return [file.rfilename for file in info.siblings or ()]
    except Exception:
        try:
            folder = Path(snapshot_download(repository, revision=revision, local_files_only=True))
        except Exception:  # not in the cache either: report why it could not be fetched
            folder = None
        if folder is None:
            raise
        return [file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()]


def _known_names(name: str) -> str:
    close = difflib.get_close_matches(name, model_names(), n=1)
    hint = f" (did you mean {close[0]!r}?)" if close else ""
    return f"and the names are {', '.join(model_names())}{hint}"
