"""A section of the configuration: named settings with defaults and ranges."""

import copy
import os
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any, TypeVar

import yaml

from err_seg.config.constraints import Range
from err_seg.utils.messages import did_you_mean

T = TypeVar("T")
S = TypeVar("S", bound="Section")

SIMPLE_TYPES = (bool, int, float, str, list, tuple, dict, type(None))


def key(default: T, allowed: Range) -> T:
    """Declare a key: its default, which each section gets a copy of, and the range of its values."""
    return field(default_factory=lambda: copy.copy(default), metadata={"range": allowed})


@dataclass
class Section:
    """Settings that are read and assigned as attributes; each subclass is a dataclass and declares them as its fields.

    Raises:
        AttributeError: a setting that is not declared is read or assigned, or one of a frozen section is assigned.
    """

    _frozen = False  # without an annotation, so not a key

    def __init_subclass__(cls) -> None:
        dataclass(cls)

    if not TYPE_CHECKING:  # a type checker that sees this method allows any name

        def __setattr__(self, name: str, value: Any) -> None:
            if self._frozen:
                raise AttributeError(f"{name} cannot be set: the configuration is frozen; call defrost() first")
            known = [declared.name for declared in fields(self)]
            if name not in known:
                hint = did_you_mean(name, known, f"its keys are {', '.join(known)}")
                raise AttributeError(f"{type(self).__name__} has no key {name}; {hint}")
            if type(value) not in SIMPLE_TYPES and not isinstance(value, Section):
                raise TypeError(f"{name} must be a text, number, list, dictionary, True, False or None, not {value!r}")
            if isinstance(value, str) and value.startswith("~"):  # only paths do
                value = os.path.expanduser(value)
            super().__setattr__(name, value)

    def items(self) -> list[tuple[str, Any]]:
        """Return the settings and sections in here, by name, as declared."""
        return [(declared.name, getattr(self, declared.name)) for declared in fields(self)]

    def clone(self: S) -> S:
        """Return an independent copy, frozen if this is."""
        return copy.deepcopy(self)

    def dump(self) -> str:
        """Return the settings as YAML, sorted by name."""
        return yaml.safe_dump(asdict(self))

    def freeze(self, frozen: bool = True) -> None:
        """Refuse assignments from now on, here and in the sections within."""
        vars(self)["_frozen"] = frozen
        for _, value in self.items():
            if isinstance(value, Section):
                value.freeze(frozen)

    def defrost(self) -> None:
        """Allow assignments again."""
        self.freeze(False)
