"""Whether the entries of a checkpoint fit a model, and what to say where they do not."""

from collections.abc import Iterable, Mapping
from itertools import takewhile
from typing import Any

from torch import Tensor, nn

from err_seg.models.checkpoint_names import current_names
from err_seg.utils.messages import listed

DIFFERENCES_SHOWN = 4  # of each kind


class CheckpointError(ValueError):
    """A checkpoint that cannot be read or does not fit; the message names the file and the differences."""


def fitting_state(model: nn.Module, state: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return a state dictionary, under names of any kind (:func:`current_name`), as one that fits the model.

    Raises:
        CheckpointError: it does not fit, or holds NaN or infinity; lists the differences or the entries, with ``name``
            saying where they come from.
    """
    state = current_names(state)
    check_shapes(model, state, name)
    if wrong := [key for key, value in state.items() if not value.isfinite().all()]:
        raise CheckpointError(
            f"{name} holds NaN or infinity, with which every result would be wrong; nothing was loaded. Of "
            f"{len(state)} entries these {len(wrong)} are damaged: {listed(wrong)}. Use an earlier checkpoint"
        )
    return state


def check_shapes(model: nn.Module, state: Mapping[str, Any], name: str) -> None:
    """Check that entries, by today's name, are those of a model, which may be on the device "meta".

    Raises:
        CheckpointError: see :func:`fitting_state`.
    """
    expected = model.state_dict()
    missing = {key: f"{key} {tuple(expected[key].shape)}" for key in expected.keys() - state.keys()}
    others = {key: key for key in state.keys() - expected.keys()}
    unequal = {}
    for key in expected.keys() & state.keys():
        found = state[key]
        if not isinstance(found, Tensor) or found.shape != expected[key].shape:
            shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
            unequal[key] = f"{key}: the model has {tuple(expected[key].shape)}, the checkpoint {shape}"
    if not (missing or others or unequal):
        return
    lines = [*_some(unequal, ""), *_some(missing, "missing: "), *_some(others, "not in the model: ")]
    prefix = _common_prefix(others)
    if prefix and (known := sum(key.removeprefix(prefix) in missing for key in others)):
        lines.append(f"without {prefix!r}, with which all of these begin, {known} would be in the model: rename them")
    raise CheckpointError(
        f"{name} does not fit the model; nothing was loaded. {len(missing) + len(others) + len(unequal)} differences:"
        + "".join(f"\n  {line}" for line in lines)
        + "\nIs it a checkpoint of another size (MODEL.CLIP.NAME), or of other MODEL settings?"
    )


def _some(differences: Mapping[str, str], kind: str) -> list[str]:
    """Say the first differences of a kind, and how many more there are."""
    lines = [f"{kind}{differences[key]}" for key in sorted(differences)]
    if len(lines) <= DIFFERENCES_SHOWN:
        return lines
    prefix = _common_prefix(differences)
    more = f"{kind}{len(lines) - DIFFERENCES_SHOWN} more{f'; all begin with {prefix!r}' if prefix else ''}"
    return [*lines[:DIFFERENCES_SHOWN], more]


def _common_prefix(names: Iterable[str]) -> str:
    """Return the modules that all names begin with, and the dot behind them."""
    modules = zip(*(name.split(".")[:-1] for name in names), strict=False)
    return "".join(f"{words[0]}." for words in takewhile(lambda words: len(set(words)) == 1, modules))
