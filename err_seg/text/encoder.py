"""VocabularyEncoder: how a model reads class names, from text to embeddings."""

import functools
import logging
from collections.abc import Callable, Sequence

from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from err_seg.modeling.clip import OpenCLIP
from err_seg.text.cache import TextEmbeddings
from err_seg.text.prompts import PromptStyle, Vocabulary, VocabularyError, check_vocabulary
from err_seg.text.vocabularies import common_vocabulary, load_vocabulary, vocabulary_names
from err_seg.utils.messages import listed

logger = logging.getLogger(__name__)

LONGEST_WORD = 300  # characters; the time of CLIP's tokenizer grows with the square: 31 s for 30,000

REMEMBERED = 4  # vocabularies; threads may replace the dictionary, but none changes it


class VocabularyEncoder:
    """CLIP's tokenizer, the prompts for class names, and the cache of their embeddings. Threads may share one object.

    Args:
        tokenizer: maps texts and a ``context_length`` to (N, context_length) int64 tokens, 0 behind the end.
        context_length: how many tokens the text tower can read (77 for CLIP).
        style: templates and synonyms for calls that name none.
        embeddings: the cache.
    """

    def __init__(
        self,
        tokenizer: Callable[..., Tensor],
        context_length: int,
        style: PromptStyle | None = None,
        embeddings: TextEmbeddings | None = None,
    ):
        self.tokenizer = tokenizer
        self.context_length = context_length
        self.style = style or PromptStyle()
        self.embeddings = embeddings or TextEmbeddings(None)
        self._recent: dict[tuple[tuple[str, ...], PromptStyle], Tensor] = {}

    @property
    def common_names(self) -> Sequence[str]:
        """The names that most images can be described with: the tokenizer's own, else those of the package."""
        return getattr(self.tokenizer, "names", None) or common_vocabulary()

    def tokenize(self, vocabulary: Sequence[str], style: PromptStyle | None = None) -> Tensor:
        """Turn T class names into the tokens of their prompts, on the CPU, cut behind the longest.

        The latest few results are remembered.

        Returns:
            (T, P, L) int64 tokens; P is the largest number of prompts of a class, rows of zeros fill up the others.

        Raises:
            VocabularyError: see :func:`err_seg.text.prompts.check_vocabulary`; also an endless word, a prompt of more
                than ``context_length`` tokens, and classes with the same prompts, as the tower reads them. Classes of
                a vocabulary in the package that have the same prompts are reported as a warning.
        """
        key = check_vocabulary(vocabulary), style or self.style
        if shown := key[0].rows.keys() & set(key[0]):
            raise VocabularyError(f"{listed(map(repr, sorted(shown)))}: classes by example have no words to be read")
        tokens = self._recent.get(key)
        if tokens is None:
            tokens = self._tokenize(*key)
            latest = list(self._recent.items())[1 - REMEMBERED :]
            self._recent = {**dict(latest), key: tokens}
        return tokens

    def _tokenize(self, names: Vocabulary, style: PromptStyle) -> Tensor:
        prompts = [style.prompts(name) for name in names]
        word = max((word for group in prompts for text in group for word in text.split()), key=len)
        if len(word) > LONGEST_WORD:
            raise VocabularyError(
                f"the word {word[:40]!r}… has {len(word)} characters, more than {LONGEST_WORD}; shorten it, or "
                "separate the names"
            )
        # one position more than the tower reads shows which prompts do not fit
        tokens = self.tokenizer([text for group in prompts for text in group], context_length=self.context_length + 1)
        groups = tokens.split([len(group) for group in prompts])
        if too_long := [name for name, group in zip(names, groups, strict=True) if group[:, self.context_length].any()]:
            shown = ", ".join(repr(name if len(name) <= 60 else name[:57] + "...") for name in too_long[:5])
            raise VocabularyError(
                f"{len(too_long)} class name(s) exceed the {self.context_length} tokens that CLIP reads: {shown}; "
                "shorten them"
            )
        _check_differ(names, groups)
        length = int(tokens.argmax(dim=1).max()) + 1
        return pad_sequence([group[:, :length] for group in groups], batch_first=True)

    def embed(self, clip: OpenCLIP, vocabulary: Sequence[str], style: PromptStyle | None = None) -> Tensor:
        """Embed T class names to (T, D) unit vectors, without gradient; cached until the CLIP's weights change."""
        return self.embeddings(clip, self.tokenize(vocabulary, style))


def _check_differ(names: Vocabulary, tokens: Sequence[Tensor]) -> None:
    """Refuse classes with equal tokens (prompts, L): only the first of them would ever get a pixel.

    A few such classes of the vocabularies in the package count in published numbers; they are only reported.
    """
    alike: dict[tuple[bytes, ...], list[str]] = {}
    for name, prompts in zip(names, tokens, strict=True):
        alike.setdefault(tuple(sorted(row.tobytes() for row in prompts.numpy())), []).append(name)
    if groups := [group for group in alike.values() if len(group) > 1]:
        packaged = [set(load_vocabulary(name)) for name in vocabulary_names()]
        own = [group for group in groups if not any(table.issuperset(group) for table in packaged)]
        shown = listed((" = ".join(map(repr, group)) for group in own or groups), 9)
        message = f"CLIP cannot tell these class names apart, so that only the first of each gets pixels: {shown}"
        if own:
            raise VocabularyError(
                f"{message}. Case, repeated spaces, how accents are encoded and, with synonyms='first', what follows "
                "the first comma do not count; keep one name of each, or make the words before the comma differ"
            )
        _warn_once(message)


_warn_once = functools.cache(logger.warning)
