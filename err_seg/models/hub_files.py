"""Where weights come from: the released models by name, and repositories on the Hugging Face hub.

In a repository, a file is recognised by what is in it: the width of the image tower's stem and the head tell the
released models apart. Names only say where to look first.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from huggingface_hub import HfApi, hf_hub_download, snapshot_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from err_seg.mini.clip import ERR_SEG_WEIGHTS
from err_seg.models.checkpoint import CheckpointError, read_shapes
from err_seg.models.checkpoint_names import current_name
from err_seg.utils.files import cache_dir

Shapes = Mapping[str, tuple[int, ...]]
WEIGHT_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")
PRETRAINED_WEIGHTS = "model.safetensors"  # as the users of the hub expect
HUB_SECONDS = 15


class HubError(ValueError):
    """A model that cannot be found, fetched or trusted; the message says which file to put where."""


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
OTHER_NETWORK = "an ERR-Seg network of another kind"
ASIDE = re.compile(r"clip(?!_model)|optim|sched|scaler|rng|training", re.IGNORECASE)
"""Names of files that may well hold something else than a network; they are looked into last."""


@dataclass(frozen=True)
class FoundWeights:
    """A file of weights on this machine.

    Attributes:
        file: where it is.
        repository, filename, revision: where it was fetched from: repository, path in it, and commit.
    """

    file: Path
    repository: str | None = None
    filename: str | None = None
    revision: str | None = None


def kind_of(shapes: Shapes) -> str:
    """Say what the tensors of a file are: a name of ``MODELS``, else what else was recognised.

    Args:
        shapes: the shape of every tensor by today's name.
    """
    widths = {shape[0] for name, shape in shapes.items() if name.endswith(STEM)}
    if any(name.startswith("head.") for name in shapes) and any(name.startswith("encoder.clip.") for name in shapes):
        return next((name for name, model in MODELS.items() if widths == {model.width}), OTHER_NETWORK)
    return f"CLIP of width {widths.pop()}, without ERR-Seg's head" if len(widths) == 1 else "no network of ours"


def weights_dir() -> Path:
    """Return the folder where users put files by hand: ``$ERR_SEG_CACHE/weights``, else in ``~/.cache/err_seg``."""
    return cache_dir() / "weights"


def find_weights(
    name: str, *, repository: str | None = None, filename: str | None = None, revision: str | None = None
) -> FoundWeights:
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
        return FoundWeights(packaged)
    by_hand = [weights_dir() / f"{name}{suffix}" for suffix in WEIGHT_SUFFIXES]
    nothing_pinned = all(value is None for value in (repository, filename, revision))
    if nothing_pinned and (found := [file for file in by_hand if file.is_file()]):
        return FoundWeights(found[0])
    remedy = f"put it at {weights_dir() / name}.pth (or .safetensors), or give its path instead of the name"
    return fetch_weights(
        repository or MODELS[name].repository, name, filename=filename, revision=revision, remedy=remedy
    )


def fetch_weights(
    repository: str, wanted: str | None, *, filename: str | None, revision: str | None, remedy: str
) -> FoundWeights:
    """Fetch a file of weights from a repository, or find it in the hub's cache.

    Args:
        repository: on the Hugging Face hub.
        wanted: a name of ``MODELS``; ``None``: any network of ours.
        filename: the file; by default it is recognised, see :func:`choose_file`.
        revision: branch, tag or commit.
        remedy: what to do with a file that was fetched in another way; ends an error's message.

    Raises:
        HubError: it cannot be fetched, or no file or several are what is wanted.
    """

    def shapes_of(file: str) -> Shapes:
        if file.endswith(".safetensors"):
            with suppress(Exception):  # no network, or a mirror that serves no parts of files: read the file itself
                header = HfApi().parse_safetensors_file_metadata(repository, file, revision=revision)
                return {current_name(name): tuple(tensor.shape) for name, tensor in header.tensors.items()}
        return read_shapes(_fetched(repository, file, revision).file)

    try:
        if filename is None:
            filename = choose_file(wanted, _files_of(repository, revision), shapes_of, repository)
        return _fetched(repository, filename, revision)
    except HubError:
        raise
    except Exception as error:  # the hub's client and the network libraries beneath it each raise their own
        raise HubError(
            f"could not fetch {filename or f'the checkpoint of {wanted or repository}'} from "
            f"https://huggingface.co/{repository}: {_reason(error, filename, revision, remedy)}"
        ) from error


def _reason(error: Exception, filename: str | None, revision: str | None, remedy: str) -> str:
    """Say why a file cannot be fetched and what to do; ``remedy`` is for when the hub cannot be reached."""
    if isinstance(error, RevisionNotFoundError):
        return f"it has no revision {revision!r}; give one of its branches, tags or commits"
    if isinstance(error, EntryNotFoundError) and not isinstance(error, LocalEntryNotFoundError):
        return f"it has no such file{f' at revision {revision}' if revision else ''}"
    if isinstance(error, GatedRepoError):
        return "its owner grants access: ask for it there, then run `hf auth login`"
    if isinstance(error, RepositoryNotFoundError):
        return "there is no such repository, or it is private (then run `hf auth login`)"
    said = f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"
    if isinstance(error, OSError) and error.filename is not None:
        return f"it cannot be kept on this machine ({said}); set HF_HOME to a folder that can be written"
    return f"{said}. Fetch it in any other way, and {remedy}"


def weights_in(folder: Path, filename: str | None = None) -> FoundWeights:
    """Find the weights in a folder on this machine or in the folders in it, as in a repository.

    Args:
        folder: where to look.
        filename: the file in it; by default it is recognised, see :func:`choose_file`.

    Raises:
        HubError: there is no such file, none is a network of ours, or several are; lists the files and what they are.
    """
    if filename is not None:
        if not (folder / filename).is_file():
            raise HubError(f"{folder} has no file {filename}")
        return FoundWeights(folder / filename)
    within = (*folder.glob("*"), *folder.glob("*/*"))  # no deeper: it may be anyone's whole disk
    files = [file.relative_to(folder).as_posix() for file in within if file.is_file()]
    return FoundWeights(folder / choose_file(None, files, lambda file: read_shapes(folder / file), str(folder)))


def choose_file(wanted: str | None, files: Iterable[str], shapes_of: Callable[[str], Shapes], repository: str) -> str:
    """Choose the file of a model among the files of a repository, by what is in them.

    Files that are named after the model are looked into first, those that :data:`ASIDE` names last, and those named
    after another model not at all. The first of these groups that holds the model decides. If any network will do,
    files in the repository itself come before those in its folders.

    Args:
        wanted: a name of ``MODELS``; ``None``: any network of ours.
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
        f"{len(found) or 'no'} files of {repository} are {wanted or 'networks of ours'}{remedy}. "
        f"Its files of weights: {listed}"
    )


def _fetched(repository: str, filename: str, revision: str | None) -> FoundWeights:
    """Fetch a file, or find it in the hub's cache, whose folders are named after commits."""
    file = Path(hf_hub_download(repository, filename, revision=revision, etag_timeout=HUB_SECONDS))
    return FoundWeights(file, repository, filename, file.parents[len(PurePosixPath(filename).parts) - 1].name)


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
