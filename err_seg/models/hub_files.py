"""Where weights come from: the released models by name, and repositories on the Hugging Face hub.

In a repository, a file is recognised by what is in it: the width of the image tower's stem and the head tell the
released models apart. Names only say where to look first.
"""

import re
import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from os.path import expanduser
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from huggingface_hub import HfApi, hf_hub_download, snapshot_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import disable_progress_bars

from err_seg.mini.clip import ERR_SEG_WEIGHTS
from err_seg.models.checkpoint import CheckpointError, HubError, read_shapes, reason_of
from err_seg.models.checkpoint_names import current_name
from err_seg.utils.files import cache_dir
from err_seg.utils.messages import did_you_mean

if sys.stderr is None:  # under pythonw and in services; the hub's bars would fail
    disable_progress_bars()

Shapes = Mapping[str, tuple[int, ...]]
WEIGHT_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")
PRETRAINED_WEIGHTS = "model.safetensors"  # as the users of the hub expect
HUB_SECONDS = 15


@dataclass(frozen=True)
class NamedModel:
    """A configuration, and a place to get its weights from.

    Attributes:
        config: a shipped configuration.
        packaged: the file of weights that comes with the package, if one does.
        width: channels of the stem, by which its weights are recognised.
        files: regular expression of the names that its file may well have, ignoring case.
        repository: the authors' repository on the Hugging Face hub.
    """

    config: str
    packaged: Path | None = None
    width: int | None = None
    files: str = "(?!)"
    repository: str = "lchen1019/ERR-Seg"


MODELS: Mapping[str, NamedModel] = {
    "err-seg-b": NamedModel("err_seg_convnext_b", width=128, files=r"convnext[-_]?b|base|(^|[-_./]|seg)b([-_./]|$)"),
    "err-seg-l": NamedModel("err_seg_convnext_l", width=192, files=r"convnext[-_]?l|large|(^|[-_./]|seg)l([-_./]|$)"),
    "mini": NamedModel("mini/err_seg", packaged=ERR_SEG_WEIGHTS),
}
STEM = "visual.trunk.stem.0.weight"
CLIP_PART = re.compile(r"encoder\.(.+\.)?clip\.")  # an encoder of one's own may wrap another
OTHER_NETWORK = "an ERR-Seg network of another kind"
ASIDE = re.compile(r"clip(?!_model)|optim|sched|scaler|rng|training", re.IGNORECASE)
"""Names of files that may well hold something else than a network; they are looked into last."""


class FoundWeights(NamedTuple):
    """A file of weights on this machine, and where it was fetched from: repository, path in it, and commit."""

    file: Path
    repository: str | None = None
    filename: str | None = None
    revision: str | None = None


def kind_of(shapes: Shapes) -> str:
    """Say what the tensors of a file are, by their shapes: a name of ``MODELS``, else what else was recognised."""
    widths = {shape[0] for name, shape in shapes.items() if name.endswith(STEM)}
    if any(name.startswith("head.") for name in shapes) and any(CLIP_PART.match(name) for name in shapes):
        return next((name for name, model in MODELS.items() if widths == {model.width}), OTHER_NETWORK)
    return f"CLIP of width {widths.pop()}, without ERR-Seg's head" if len(widths) == 1 else "no ERR-Seg network"


def weights_dir() -> Path:
    """Return the folder where users put files by hand: ``$ERR_SEG_CACHE/weights``, else in ``~/.cache/err_seg``."""
    return cache_dir() / "weights"


def find_weights(
    name: str, *, repository: str | None = None, filename: str | None = None, revision: str | None = None
) -> FoundWeights:
    """Find a model's file of weights on this machine, or fetch it; arguments and errors are those of ``err_seg.load``.

    A named model is looked for in the package, in :func:`weights_dir`, in the hub's cache, and on the hub.
    """
    path = Path(expanduser(name))
    is_pinned = repository is not None or revision is not None
    if name in MODELS:
        if (packaged := MODELS[name].packaged) is not None:
            if is_pinned or filename is not None:
                raise HubError(f"{name!r} is in the package: repository, filename and revision are for released models")
            if not packaged.is_file():
                raise HubError(
                    f"the package lacks {packaged.name} in {packaged.parent}; install it again, or make the weights "
                    "with: err-seg mini all --from-scratch --package"
                )
            return FoundWeights(packaged)
        by_hand = [file for suffix in WEIGHT_SUFFIXES if (file := weights_dir() / f"{name}{suffix}").is_file()]
        if by_hand and not is_pinned and filename is None:
            return FoundWeights(by_hand[0])
        remedy = f"put it at {weights_dir() / name}.pth (or .safetensors), or give its path instead of the name"
        return _fetch(repository or MODELS[name].repository, name, filename, revision, remedy)
    if not path.exists() and not name.endswith(WEIGHT_SUFFIXES) and re.fullmatch(r"\w[\w.-]*/[\w.-]+", name):
        if repository is not None:
            raise HubError("the repository is named twice: as the model, and with repository= (--repository)")
        return _fetch(name, None, filename, revision, "give the path of the file instead")
    if not path.exists():
        near = did_you_mean(name.lower().replace("_", "-"), MODELS, "")
        known = f"{', '.join(MODELS)}{f' ({near})' if near else ''}"
        raise HubError(f"no model {name!r}: there is no such file, and the names are {known}")
    if is_pinned:
        raise HubError(f"{name} is on this machine: repository and revision are for models of the hub")
    if path.is_dir():
        return FoundWeights(_file_in(path, filename))
    if filename is not None:
        raise HubError(f"{name} is a file: filename is for repositories and folders")
    return FoundWeights(path)


def _file_in(folder: Path, filename: str | None) -> Path:
    """Return the file of that name, else the only network in a folder or in the folders in it."""
    if filename is None:
        within = (*folder.glob("*"), *folder.glob("*/*"))  # no deeper: it may be anyone's whole disk
        files = [file.relative_to(folder).as_posix() for file in within if file.is_file()]
        filename = choose_file(None, files, lambda file: read_shapes(folder / file), str(folder))
    elif not (folder / filename).is_file():
        raise HubError(f"{folder} has no file {filename}")
    return folder / filename


def _fetch(
    repository: str, wanted: str | None, filename: str | None, revision: str | None, remedy: str
) -> FoundWeights:
    """Fetch a file from a repository, or find it in the hub's cache; by default, the one that holds ``wanted``.

    ``remedy`` ends the message of an error: what to do with a file that was fetched in another way.
    """

    def download(file: str) -> Path:
        return Path(hf_hub_download(repository, file, revision=revision, etag_timeout=HUB_SECONDS))

    def shapes_of(file: str) -> Shapes:
        if file.endswith(".safetensors"):
            with suppress(Exception):  # no network, or a mirror that serves no parts of files: read the file itself
                header = HfApi().parse_safetensors_file_metadata(repository, file, revision=revision)
                return {current_name(name): tuple(tensor.shape) for name, tensor in header.tensors.items()}
        return read_shapes(download(file))

    try:
        if filename is None:
            filename = choose_file(wanted, _files_of(repository, revision), shapes_of, repository)
        file = download(filename)
    except HubError:
        raise
    except Exception as error:  # the hub's client and the network libraries beneath it each raise their own
        raise HubError(
            f"could not fetch {filename or f'the checkpoint of {wanted or repository}'} from "
            f"https://huggingface.co/{repository}: {_why_not_fetched(error, filename, revision, remedy)}"
        ) from error
    commit = file.parents[len(PurePosixPath(filename).parts) - 1].name  # as the folders of the hub's cache are named
    return FoundWeights(file, repository, filename, commit)


def _files_of(repository: str, revision: str | None) -> list[str]:
    """List a repository's files; without a network, those in the cache."""
    try:
        info = HfApi().model_info(repository, revision=revision, timeout=HUB_SECONDS)
        return [file.rfilename for file in info.siblings or ()]
    except Exception:
        with suppress(Exception):  # not in the cache either: report why it could not be fetched
            folder = Path(snapshot_download(repository, revision=revision, local_files_only=True))
            return [file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()]
        raise


def _why_not_fetched(error: Exception, filename: str | None, revision: str | None, remedy: str) -> str:
    """Say why a file cannot be fetched and what to do; ``remedy`` is for when the hub cannot be reached."""
    if isinstance(error, RevisionNotFoundError):
        return f"it has no revision {revision!r}; give one of its branches, tags or commits"
    if isinstance(error, EntryNotFoundError) and not isinstance(error, LocalEntryNotFoundError):
        return f"it has no such file{f' at revision {revision}' if revision else ''}"
    if isinstance(error, GatedRepoError):
        return "its owner grants access: ask for it there, then run `hf auth login`"
    if isinstance(error, RepositoryNotFoundError):
        return "there is no such repository, or it is private (then run `hf auth login`)"
    if isinstance(error, OSError) and error.filename is not None:
        return f"it cannot be kept on this machine ({reason_of(error)}); set HF_HOME to a folder that can be written"
    return f"{reason_of(error)}. Fetch it in any other way, and {remedy}"


def choose_file(wanted: str | None, files: Iterable[str], shapes_of: Callable[[str], Shapes], repository: str) -> str:
    """Choose the file of a model among the files of a repository or folder, by what is in them.

    Files that are named after the model are looked into first, those that :data:`ASIDE` names last, and those named
    after another model not at all. The first of these groups that holds the model decides. If any network will do,
    files in the repository itself come before those in its folders.

    Args:
        wanted: a name of ``MODELS``; ``None``: any ERR-Seg network.
        files: their paths in the repository.
        shapes_of: returns the shapes of the tensors in a file, by today's name.
        repository: for messages.

    Raises:
        HubError: none is what is wanted, or several are; lists the files and what they are.
    """
    kinds = {file: "not looked into" for file in sorted(files) if file.endswith(WEIGHT_SUFFIXES)}
    groups: dict[tuple[int, int], list[str]] = {}
    for file in kinds:
        stem = str(PurePosixPath(file).with_suffix(""))
        named = {name for name, model in MODELS.items() if re.search(model.files, stem, re.IGNORECASE)}
        is_likely = wanted in named if wanted else file == PRETRAINED_WEIGHTS
        if wanted is None or is_likely or not named:
            depth = 0 if wanted else file.count("/")
            groups.setdefault((2 if ASIDE.search(stem) else 0 if is_likely else 1, depth), []).append(file)
        else:
            kinds[file] = f"named after {' and '.join(sorted(named))}"
    found: list[str] = []
    for _, group in sorted(groups.items()):
        for file in group:
            try:
                kinds[file] = kind_of(shapes_of(file))
            except CheckpointError:
                kinds[file] = "cannot be read as weights"
        accepted = (*MODELS, OTHER_NETWORK) if wanted is None else (wanted,)
        found = [file for file in group if kinds[file] in accepted]
        if found:
            break
    if len(found) == 1:
        return found[0]
    listed = "; ".join(f"{file} ({kind})" for file, kind in kinds.items()) or "none"
    remedy = "; choose one with filename=... (--filename)" if found else ""
    raise HubError(
        f"{len(found) or 'no'} files of {repository} are {wanted or 'ERR-Seg networks'}{remedy}. "
        f"Its files of weights: {listed}"
    )
