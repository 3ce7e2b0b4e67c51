"""Whether the entries of a checkpoint fit a model, and what to say where they do not."""

from collections.abc import Iterator, Mapping
from itertools import takewhile
from typing import Any

from torch import Tensor, nn

from err_seg.models.checkpoint_names import current_names
from err_seg.utils.device import all_finite
from err_seg.utils.messages import listed

DIFFERENCES_SHOWN = 4  # of each kind


class CheckpointError(ValueError):
    """A checkpoint that cannot be read or does not fit; the message names the file and the differences."""


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
