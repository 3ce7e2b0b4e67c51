"""Models as users of the Hugging Face hub expect them: ``save_pretrained``, ``push_to_hub``."""

import json
import os
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from huggingface_hub import HfApi, get_token

from err_seg.models.card import TrainingRecord, model_card
from err_seg.models.checkpoint import HubError, reason_of, save_weights
from err_seg.models.hub_files import PRETRAINED_WEIGHTS
from err_seg.prediction.model import ERRSeg
from err_seg.utils.files import write_text
from err_seg.utils.validation import ArgumentError

CONFIG, CARD = "config.json", "README.md"
FILES = (PRETRAINED_WEIGHTS, CONFIG, CARD)
NO_RECORD = TrainingRecord()


def save_pretrained(
    model: ERRSeg, folder: str | os.PathLike[str], *, name: str | None = None, run: TrainingRecord = NO_RECORD
) -> None:
    """Write weights (safetensors, which hold the configuration), ``config.json`` and the model card to a folder.

    Device and precision are not kept: they are for those who load it to choose.

    Args:
        model: to save.
        folder: made if it is missing; files of these names are replaced.
        name: of the repository, for the card; by default that of the folder.
        run: data, results and licence, for the card.

    Raises:
        ArgumentError: the network has no configuration.
        OSError: a file cannot be written.
    """
    if not model.settings:
        raise ArgumentError("the network has no configuration to save; build it with err_seg.build_model")
    folder = Path(folder)
    config, calibration = stored_config(model), model.calibration
    metadata = {"config": config, **({"calibration": asdict(calibration)} if calibration else {})}
    save_weights(model, folder / PRETRAINED_WEIGHTS, metadata)
    write_text(folder / CONFIG, config + "\n")
    write_text(folder / CARD, model_card(name or folder.resolve().name, model.settings, run, calibration))


def stored_config(model: ERRSeg) -> str:
    """Write the configuration of a network as files of weights hold it."""
    nested: dict[str, Any] = {}
    for key, value in model.settings.items():
        *sections, last = key.split(".")
        place = nested
        for section in sections:
            place = place.setdefault(section, {})
        place[last] = value
    return json.dumps(nested, indent=1)


def push_to_hub(model: ERRSeg, repository: str, *, private: bool = False, run: TrainingRecord = NO_RECORD) -> str:
    """Save a model, see :func:`save_pretrained`, and upload it; return the commit's address.

    Raises:
        HubError: there is no token, no network, or no permission.
    """
    with TemporaryDirectory() as folder:
        save_pretrained(model, folder, name=repository, run=run)
        return upload(Path(folder), repository, private=private)


def upload(folder: Path, repository: str, *, private: bool = False) -> str:
    """Upload what ``save_pretrained`` wrote to a folder, and nothing else in it; return the commit's address.

    A repository that is missing is made, with ``private`` for its owner alone.

    Raises:
        HubError: there is no token, no network, or no permission.
    """
    if get_token() is None:
        raise HubError(
            f"cannot upload to {repository}, not logged in to the Hugging Face Hub: run `hf auth login`, or set "
            "HF_TOKEN to a token that may write"
        )
    try:
        api = HfApi()
        api.create_repo(repository, private=private, exist_ok=True)
        return str(api.upload_folder(repo_id=repository, folder_path=folder, allow_patterns=list(FILES)))
    except Exception as error:  # the hub's client and the network libraries beneath it each raise their own
        raise HubError(f"could not upload to https://huggingface.co/{repository} ({reason_of(error)})") from error
