"""Models as users of the Hugging Face hub expect them: ``from_pretrained``, ``save_pretrained``, ``push_to_hub``.

Building a network from its configuration is the work of a higher floor. So the class only declares ``loader``, and
:mod:`err_seg.hub`, where the exported ``err_seg.ERRSeg`` comes from, says that it is ``err_seg.load``.
"""

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar, TypeVar

from huggingface_hub import HfApi, get_token

from err_seg.arguments import ArgumentError
from err_seg.checkpoint import save_weights
from err_seg.files import write_text
from err_seg.model_card import Run, model_card
from err_seg.repositories import PRETRAINED_WEIGHTS, HubError

Model = TypeVar("Model", bound="Pretrained")
CONFIG, CARD = "config.json", "README.md"
FILES = (PRETRAINED_WEIGHTS, CONFIG, CARD)
NOTHING_KNOWN = Run()


class Pretrained:
    """A network that can be saved to a folder or a repository of the hub, and loaded from there."""

    settings: Mapping[str, Any]
    loader: ClassVar[Callable[..., Any] | None] = None
    """Loads a model by name, folder or repository."""

    @classmethod
    def from_pretrained(cls: type[Model], model: str | os.PathLike[str], **options: Any) -> Model:
        """Load a model from a folder or a repository, as ``err_seg.load`` does.

        Args:
            model: a folder that :meth:`save_pretrained` wrote, "user/repo" on the hub, or a name or file.
            options: those of ``err_seg.load``, such as ``revision`` and ``device``.

        Raises:
            HubError, ConfigError, CheckpointError: see ``err_seg.load``.
        """
        if cls.loader is None:
            raise ArgumentError("nothing is there that loads models; use err_seg.ERRSeg, or import err_seg.hub first")
        return cls.loader(model, **options)

    def save_pretrained(
        self, folder: str | os.PathLike[str], *, name: str | None = None, run: Run = NOTHING_KNOWN
    ) -> None:
        """Write weights (safetensors, which hold the configuration), ``config.json`` and the model card to a folder.

        Device and precision are not kept: they are for those who load it to choose.

        Args:
            folder: made if it is missing; files of these names are replaced.
            name: of the repository, for the card; by default that of the folder.
            run: what the card tells of data, results and licence.

        Raises:
            ArgumentError: the network has no configuration.
            OSError: a file cannot be written.
        """
        if not self.settings:
            raise ArgumentError("the network does not know its configuration; build it with err_seg.build_model")
        folder = Path(folder)
        config = json.dumps(_nested(self.settings), indent=1)
        save_weights(self, folder / PRETRAINED_WEIGHTS, {"config": config})  # type: ignore[arg-type]  # an nn.Module
        write_text(folder / CONFIG, config + "\n")
        write_text(folder / CARD, model_card(name or folder.resolve().name, self.settings, run))

    def push_to_hub(self, repository: str, *, private: bool = False, run: Run = NOTHING_KNOWN) -> str:
        """Save the model, see :meth:`save_pretrained`, and upload it; return the commit's address.

        Raises:
            HubError: there is no token, no network, or no permission.
        """
        with TemporaryDirectory() as folder:
            self.save_pretrained(folder, name=repository, run=run)
            return upload(Path(folder), repository, private=private)


def upload(folder: Path, repository: str, *, private: bool = False) -> str:
    """Upload what ``save_pretrained`` wrote to a folder, and nothing else in it; return the commit's address.

    Args:
        folder: of the model.
        repository: on the hub, made if it is missing.
        private: whether a new one is for its owner alone.

    Raises:
        HubError: there is no token, no network, or no permission.
    """
    if get_token() is None:
        raise HubError(
            f"to upload to {repository}, the Hugging Face hub must know you: run `hf auth login`, or set HF_TOKEN to a "
            "token that may write"
        )
    try:
        api = HfApi()
        api.create_repo(repository, private=private, exist_ok=True)
        return str(api.upload_folder(repo_id=repository, folder_path=folder, allow_patterns=list(FILES)))
    except Exception as error:  # the hub's client and the network libraries beneath it each raise their own
        reason = f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"
        raise HubError(f"could not upload to https://huggingface.co/{repository} ({reason})") from error


def _nested(settings: Mapping[str, Any]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for key, value in settings.items():
        *sections, last = key.split(".")
        place = nested
        for section in sections:
            place = place.setdefault(section, {})
        place[last] = value
    return nested
