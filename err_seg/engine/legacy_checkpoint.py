"""Checkpoints of runs that version 0.1 trained with detectron2, which can be resumed."""

import logging
from pathlib import Path

from torch import nn

from err_seg.engine.checkpoints import POINTER, TrainingState
from err_seg.models.checkpoint import CheckpointError, load_weights, open_checkpoint
from err_seg.models.checkpoint_names import current_names

logger = logging.getLogger(__name__)


def load_legacy_checkpoint(output: Path, model: nn.Module, images: int) -> TrainingState | None:
    """Load the newest checkpoint of such a run into the model; return its training state, ``None`` if there is none.

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
