"""From class names to the prompts that CLIP's text tower reads."""

import re
from collections import ChainMap, Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

from torch import Tensor

from err_seg.config.constants import DEFAULT_TEMPLATE

T = TypeVar("T")
Color = tuple[int, int, int]
CARRIED = ("colors", "rows")  # what a vocabulary holds of its names


class TextRow(NamedTuple):
    """What stands in the place of a name's text embedding.

    vector: (D,) float32 of length 1, on the CPU.
    meaning: (D,) float32, which is compared with words to find out which of them mean the same.
    weights: digest of the weights that it belongs to (:func:`err_seg.utils.fingerprint.weights_digest`).
    origin: digest of what it was made from, so that results of one row are not taken for another's.
    """

    vector: Tensor
    meaning: Tensor
    weights: str
    origin: str


class Vocabulary(tuple[str, ...]):
    """The tuple of T class names, and equal to it.

    Attributes:
        colors: sRGB in 0..255 of the names that were given a colour, by their :func:`name_key`.
        rows: of the names, exactly as written, that stand for something shown instead of said.
    """

    colors: Mapping[str, Color]
    rows: Mapping[str, TextRow]

    def __new__(
        cls,
        names: Iterable[str] = (),
        colors: Mapping[str, Color] | None = None,
        rows: Mapping[str, TextRow] | None = None,
    ) -> "Vocabulary":
        """Make one of names; what is not given is that of ``names``."""
        vocabulary = super().__new__(cls, names)
        vocabulary.colors = dict(getattr(names, "colors", {}) if colors is None else colors)
        vocabulary.rows = dict(getattr(names, "rows", {}) if rows is None else rows)
        return vocabulary


def carrying(names: Iterable[str], *sources: Iterable[str]) -> Vocabulary:
    """Make a vocabulary of names that have the colours and rows of other vocabularies; the first one counts."""
    held = (ChainMap(*(getattr(source, attribute, {}) for source in sources)) for attribute in CARRIED)
    return Vocabulary(names, *held)


def name_key(name: str) -> str:
    """Return what names of one colour have in common: neither case nor surrounding spaces count."""
    return name.strip().casefold()


def synonyms_of(name: str) -> list[str]:
    """Split a class name at its commas, which join synonyms with or without a space; blank ones do not count."""
    return [synonym for synonym in re.split(r",\s*", name) if synonym.strip()]


class VocabularyError(ValueError):
    """A vocabulary that cannot be used; the message names the offending names and what to do."""


@dataclass(frozen=True)
class PromptStyle:
    """How a class name becomes prompts.

    Attributes:
        templates: each with one ``{}`` for the name; several are averaged.
        synonyms: ``"first"`` uses the part of a name before the first comma (as every published number does);
            ``"average"`` averages over all of them.

    Raises:
        VocabularyError: they do not make prompts.
    """

    templates: tuple[str, ...] = (DEFAULT_TEMPLATE,)
    synonyms: str = "first"

    def __post_init__(self) -> None:
        wrong = [text for text in self.templates if not isinstance(text, str) or text.count("{}") != 1]
        if wrong or not self.templates:
            raise VocabularyError(
                f"each template needs one {{}} for the class name, as in {DEFAULT_TEMPLATE!r}; got {wrong or 'none'}"
            )
        if not isinstance(self.synonyms, str) or self.synonyms not in ("first", "average"):
            raise VocabularyError(f"synonyms must be 'first' or 'average', not {self.synonyms!r}")

    def changed(self, templates: Iterable[str] | None = None, synonyms: str | None = None) -> "PromptStyle":
        """Return this style with other templates or another use of synonyms; ``None`` leaves them as they are."""
        return PromptStyle(
            self.templates if templates is None else as_texts("templates", templates),
            self.synonyms if synonyms is None else synonyms,
        )

    def prompts(self, name: str) -> list[str]:
        """Return the prompts of one class."""
        synonyms = synonyms_of(name)
        if self.synonyms == "first":
            synonyms = synonyms[:1]
        return [template.replace("{}", synonym) for synonym in synonyms for template in self.templates]


def as_texts(what: str, texts: Iterable[T]) -> tuple[T, ...]:
    """Return a list (tuple, generator, ...) as a tuple.

    Raises:
        VocabularyError: it is one string, or something else that has no order.
    """
    if isinstance(texts, str):
        raise VocabularyError(f"{what} must be a list of texts, not one string: [{texts!r}]")
    has_order = isinstance(texts, Iterable) and not isinstance(texts, set | frozenset | Mapping)
    if not has_order or getattr(texts, "ndim", 1) == 0:  # an array of no axes cannot be iterated
        raise VocabularyError(f"{what} must be a list of texts, in the order that counts, not {type(texts).__name__}")
    return tuple(texts)


def check_vocabulary(vocabulary: Iterable[str], source: str = "") -> Vocabulary:
    """Return class names as a tuple, with what a vocabulary holds of them, or say what is wrong with them.

    Errors begin with ``source``, such as the file that the names are from.

    Raises:
        VocabularyError: no list, no names, something that is not text, an empty name, or the same name twice.
    """
    prefix = f"{source}: " if source else ""
    names = carrying(as_texts(f"{prefix}a vocabulary", vocabulary), vocabulary)
    if not names:
        raise VocabularyError(f"{prefix}no class names; a vocabulary has at least one")
    for index, name in enumerate(names):
        if not isinstance(name, str) or not name.split(",")[0].strip():
            raise VocabularyError(f"{prefix}class {index} is {name!r}; expected a name (a string that is not blank)")
        if not name.isascii() and name != name.encode(errors="ignore").decode():
            raise VocabularyError(f"{prefix}class {index} is {name!r}, which holds characters that no text may hold")
    repeated = [name for name, count in Counter(name.strip() for name in names).items() if count > 1]
    if repeated:
        raise VocabularyError(
            f"{prefix}class names given more than once: {', '.join(map(repr, repeated))}; name each class once"
        )
    return names
