"""Checkpoints of a training run: each is complete or absent, the newest few are kept, and damaged ones are skipped.

``OUTPUT_DIR/checkpoints/iter_0005000/`` holds ``model.safetensors`` (usable wherever weights are), ``training.pt``
(everything else that the run needs to continue) and ``files.json`` (sizes and hashes of both). A checkpoint is written
to a hidden folder, which is renamed at the end: a run that is killed at any moment leaves only complete checkpoints.
"""

import json
import logging
import os
import pickle
import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor, nn

from err_seg.config import completed, settings_of
from err_seg.models.checkpoint import CheckpointError, load_weights, open_checkpoint, save_weights
from err_seg.models.checkpoint_names import current_names
from err_seg.utils.disk import writing
from err_seg.utils.errors import TrainingError
from err_seg.utils.fingerprint import file_digest

logger = logging.getLogger(__name__)

WEIGHTS, TRAINING, HASHES = "model.safetensors", "training.pt", "files.json"
POINTER = "last_checkpoint"  # names the newest checkpoint of a run that version 0.1 trained with detectron2


@dataclass
class TrainingState:
    """What a run needs besides the weights to continue as if it had never stopped.

    The state of random numbers is not stored: an iteration's follow from seed, iteration and process.

    Attributes:
        iteration: iterations done.
        pictures: images consumed by all processes together: the position in the stream of training images.
        optimizer: parameter name to its optimizer state.
        scaler: state of fp16's loss scaling; empty at other precisions.
        losses: the latest losses, which no line of the log contains yet.
        scalars: likewise the other numbers of which a line has the mean, by name.
        config: the configuration as YAML.
        average: parameter name to the moving average of its weights; empty without ``SOLVER.EMA``.
        broken, skipped: how many losses in a row, up to the last, were not finite; how many steps loss scaling has
            skipped so far.
        best: the best result of an evaluation so far.
        teacher: digest of the weights of ``MODEL.DISTILL``'s teacher; "" without one.
    """

    iteration: int = 0
    pictures: int = 0
    optimizer: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    scaler: dict[str, Any] = field(default_factory=dict)
    losses: list[float] = field(default_factory=list)
    scalars: dict[str, list[float]] = field(default_factory=dict)
    config: str = ""
    average: dict[str, Tensor] = field(default_factory=dict)
    broken: int = 0
    skipped: int = 0
    best: float | None = None
    teacher: str = ""


class Checkpoints:
    """The checkpoints of one run in its ``OUTPUT_DIR``; so many of the newest are ``kept``."""

    def __init__(self, output: Path, kept: int):
        self.folder = output / "checkpoints"
        self.kept = kept

    def newest_first(self) -> list[Path]:
        """List the complete checkpoints."""
        found = (path for path in self.folder.glob("iter_*") if re.fullmatch(r"iter_\d{7,}", path.name))
        return sorted(found, key=_iteration, reverse=True)

    def newest_text(self) -> str:
        """Name the newest checkpoint, for messages."""
        newest, named = self.newest_first(), self.folder.with_name(POINTER)
        if not newest and named.is_file():
            newest = [named.with_name(named.read_text(encoding="utf-8").strip())]
        return f"the last good checkpoint is {newest[0]}" if newest else "there is no checkpoint yet"

    def set_aside(self) -> None:
        """Rename the checkpoints of an earlier run in the same folder, so that this run is never resumed from them.

        If a file names the newest of them, that file is renamed instead.
        """
        last = self.folder.with_name(POINTER)
        if last.exists():
            renamed = last.with_name(f"{POINTER}.old")
            os.replace(last, renamed)
            logger.warning("OUTPUT_DIR held checkpoints of an earlier run; what named the last of them is %s", renamed)
        if not self.newest_first():
            return
        number = 1
        while (aside := self.folder.with_name(f"{self.folder.name}.old-{number}")).exists():
            number += 1
        os.replace(self.folder, aside)
        logger.warning(
            "OUTPUT_DIR held checkpoints of an earlier run; they are now in %s. To continue that run instead, stop "
            "this one, rename that folder back to %s, and rerun with --resume",
            *(aside, self.folder.name),
        )

    def save(self, weights: dict[str, Tensor], state: TrainingState) -> Path:
        """Write a checkpoint, then remove the oldest ones beyond the number kept.

        Raises:
            OSError: it could not be written; the earlier ones are as before.
        """
        name = f"iter_{state.iteration:07d}"
        partial, final = self.folder / f".{name}.partial", self.folder / name
        shutil.rmtree(partial, ignore_errors=True)
        try:
            partial.mkdir(parents=True)
            facts = {"iteration": state.iteration, "config": state.config}
            save_weights(weights, partial / WEIGHTS, facts)
            # into an open file: if torch.save opens the file itself, its error for a full disk hides the reason
            with writing(partial / TRAINING), (partial / TRAINING).open("wb") as file:
                torch.save(vars(state), file)
            with writing(partial / HASHES):
                hashes = {name: _facts(partial / name) for name in (WEIGHTS, TRAINING)}
                (partial / HASHES).write_text(json.dumps(hashes, indent=1))
            if final.exists():
                shutil.rmtree(final)
            os.replace(partial, final)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        for old in self.newest_first()[self.kept :]:
            shutil.rmtree(old, ignore_errors=True)
        return final

    def load_newest(self, model: nn.Module) -> TrainingState | None:
        """Load the newest complete checkpoint into the model, and return its training state; ``None`` if there is none.

        Raises:
            CheckpointError: its weights do not fit the model.
            TrainingError: there are checkpoints, and all are damaged.
        """
        damaged = []
        for path in self.newest_first():
            try:
                state = read_checkpoint_folder(path)
            except CheckpointError as error:
                logger.warning("skipping a damaged checkpoint: %s", error)
                damaged.append(str(path))
                continue
            load_weights(model, path / WEIGHTS)
            logger.info("resuming from %s", path)
            return state
        if damaged:
            raise TrainingError(
                f"cannot resume, all checkpoints are damaged: {', '.join(damaged)}; start without --resume (they are "
                "kept aside), or set MODEL.WEIGHTS to a file of weights"
            )
        return None

    def tidy(self, iteration: int) -> None:
        """Rename checkpoints newer than the one resumed from, as they are damaged; remove what killed runs left."""
        for path in self.newest_first():
            if _iteration(path) > iteration:
                os.replace(path, path.with_name(f"{path.name}.damaged"))
        for partial in self.folder.glob(".iter_*.partial"):
            shutil.rmtree(partial, ignore_errors=True)


def read_checkpoint_folder(path: Path) -> TrainingState:
    """Check a checkpoint's files against their hashes and read its training state; nothing in it is executed.

    Raises:
        CheckpointError: a file is missing or differs from what was written; names it.
    """
    try:
        expected = json.loads((path / HASHES).read_text(encoding="utf-8"))
        for name in (WEIGHTS, TRAINING):
            found = _facts(path / name)
            if found != expected[name]:
                raise CheckpointError(f"{path / name} is not as it was written: {found}, expected {expected[name]}")
        state = TrainingState(**torch.load(path / TRAINING, map_location="cpu", weights_only=True))
        state.optimizer, state.average = current_names(state.optimizer), current_names(state.average)
        return state
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, pickle.UnpicklingError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"{path}: {type(error).__name__}: {error}") from error


def changed_settings(before: str, now: str) -> list[str]:
    """List the settings that differ between two configurations in YAML, as "KEY: before → now"."""
    old, new = (dict(settings_of(yaml.safe_load(text))) for text in (before, now))
    old = completed(old, new)
    return [f"{key}: {old.get(key)!r} → {new.get(key)!r}" for key in {**old, **new} if old.get(key) != new.get(key)]


def load_legacy_checkpoint(output: Path, model: nn.Module, images: int) -> TrainingState | None:
    """Load the newest checkpoint of a run that version 0.1 trained with detectron2; ``None`` if there is none.

    An iteration consumes ``images`` images.

    Raises:
        CheckpointError: the file cannot be read, is not one of :class:`err_seg.d2.Trainer`'s, or does not fit.
    """
    pointer = output / POINTER
    if not pointer.is_file():
        return None
    file = output / pointer.read_text(encoding="utf-8").strip()
    saved = open_checkpoint(file)
    try:
        trainer = saved.others["trainer"]
        hooks = trainer.get("hooks", {})
        inner, iteration = trainer["_trainer"], trainer["iteration"] + 1
        groups, moments = inner["optimizer"]["param_groups"], inner["optimizer"]["state"]
        places = {name: place for group in groups for name, place in zip(group["names"], group["params"], strict=True)}
        state = TrainingState(
            iteration=iteration,
            pictures=iteration * images,
            optimizer=current_names({name: moments.get(place, {}) for name, place in places.items()}),
            scaler=inner.get("grad_scaler", {}),
            losses=hooks.get("WriteReport", {}).get("losses", []),
            best=hooks.get("EvaluateAndKeepBest", {}).get("mean"),
        )
    except (KeyError, AttributeError, TypeError) as error:
        raise CheckpointError(
            f"{file}, which {pointer} names, is not a checkpoint of err_seg.d2.Trainer ({error!r}); to start from its "
            "weights, leave out --resume and set MODEL.WEIGHTS"
        ) from error
    load_weights(model, saved)
    logger.info("resuming from %s", file)
    return state


def _iteration(path: Path) -> int:
    return int(path.name.removeprefix("iter_"))


def _facts(file: Path) -> dict[str, Any]:
    return {"bytes": file.stat().st_size, "blake2b": file_digest(file)}
