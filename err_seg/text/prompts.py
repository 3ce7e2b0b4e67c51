"""From class names to the prompts that CLIP's text tower reads."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from err_seg.config.constants import DEFAULT_TEMPLATE
from err_seg.text.vocabulary import Vocabulary

SYNONYM_SEPARATOR = ", "
T = TypeVar("T")


class VocabularyError(ValueError):
    """A vocabulary that cannot be used; the message names the offending names and what to do."""


@dataclass(frozen=True)
class PromptStyle:
    """How a class name becomes prompts.

    Attributes:
        templates: each with one ``{}`` for the name; several are averaged.
        synonyms: ``"first"`` uses the part of a name before the first ", " (as every published number does);
            ``"average"`` averages over all of them.
    """

    templates: tuple[str, ...] = (DEFAULT_TEMPLATE,)
    synonyms: str = "first"

    def __post_init__(self) -> None:
        """Refuse what would not make prompts."""
        wrong = [text for text in self.templates if not isinstance(text, str) or text.count("{}") != 1]
        if wrong or not self.templates:
            raise VocabularyError(
                f"each template needs one {{}} for the class name, as in {DEFAULT_TEMPLATE!r}; got {wrong or 'none'}"
            )
        if not isinstance(self.synonyms, str) or self.synonyms not in ("first", "average"):
            raise VocabularyError(f"synonyms must be 'first' or 'average', not {self.synonyms!r}")

    def changed(self, templates: Iterable[str] | None = None, synonyms: str | None = None) -> "PromptStyle":
        """Return this style with other templates or another use of synonyms; ``None`` leaves them as they are.

        Raises:
            VocabularyError: they would not make prompts.
        """
        return PromptStyle(
            self.templates if templates is None else as_texts("templates", templates),
            self.synonyms if synonyms is None else synonyms,
        )

    def prompts(self, name: str) -> list[str]:
        """Return the prompts of one class."""
        synonyms = [synonym for synonym in name.split(SYNONYM_SEPARATOR) if synonym.strip()]
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


def check_vocabulary(vocabulary: Iterable[str]) -> Vocabulary:
    """Return the vocabulary as a tuple, with its colours, or say what is wrong with it.

    Raises:
        VocabularyError: no list, no names, something that is not text, an empty name, or the same name twice.
    """
    names = Vocabulary(as_texts("a vocabulary", vocabulary), getattr(vocabulary, "colors", None))
    if not names:
        raise VocabularyError("no class names; a vocabulary has at least one")
    for index, name in enumerate(names):
        if not isinstance(name, str) or not name.split(SYNONYM_SEPARATOR)[0].strip():
            raise VocabularyError(f"class {index} is {name!r}; expected a name (a string that is not blank)")
        if not name.isascii() and name != name.encode(errors="ignore").decode():
            raise VocabularyError(f"class {index} is {name!r}, which holds characters that no text may hold")
    repeated = [name for name, count in Counter(name.strip() for name in names).items() if count > 1]
    if repeated:
        raise VocabularyError(
            f"class names given more than once: {', '.join(map(repr, repeated))}; name each class once"
        )
    return names


def tokenize_vocabulary(
    vocabulary: Sequence[str], style: PromptStyle, tokenizer: Callable[..., Tensor], context_length: int
) -> Tensor:
    """Tokenise the prompts of all classes, cut behind the longest.

    Args:
        vocabulary: T class names.
        style: templates and synonyms.
        tokenizer: maps texts and a ``context_length`` to (N, context_length) int64 tokens, 0 behind the end.
        context_length: how many tokens the text tower can read (77 for CLIP).

    Returns:
        (T, P, L) int64 tokens; P is the largest number of prompts of a class, rows of zeros fill up the others.

    Raises:
        VocabularyError: see :func:`check_vocabulary`; also a prompt of more than ``context_length`` tokens.
    """
    names = check_vocabulary(vocabulary)
    prompts = [style.prompts(name) for name in names]
    # one position more than the tower reads shows which prompts do not fit
    tokens = tokenizer([prompt for group in prompts for prompt in group], context_length=context_length + 1)
    groups = tokens.split([len(group) for group in prompts])
    if too_long := [name for name, group in zip(names, groups, strict=True) if group[:, context_length].any()]:
        shown = ", ".join(repr(name if len(name) <= 60 else name[:57] + "...") for name in too_long[:5])
        raise VocabularyError(
            f"{len(too_long)} class name(s) exceed the {context_length} tokens that CLIP reads: {shown}; shorten them"
        )
    length = int(tokens.argmax(dim=1).max()) + 1
    return torch.nn.utils.rnn.pad_sequence([group[:, :length] for group in groups], batch_first=True)
