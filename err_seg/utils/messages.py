"""What messages say of names: the first of many, and the one that was probably meant."""

import difflib
from collections.abc import Iterable
from typing import Any


def listed(things: Iterable[Any], most: int = 8) -> str:
    """Name the first of many things: "a, b, c and 4 more"."""
    names = [str(thing) for thing in things]
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def did_you_mean(name: object, known: Iterable[str], otherwise: str) -> str:
    """Suggest the known name that is nearest to one that is not known; where none is near, say something else."""
    near = difflib.get_close_matches(str(name), list(known), n=1)
    return f"did you mean {near[0]!r}?" if near else otherwise
