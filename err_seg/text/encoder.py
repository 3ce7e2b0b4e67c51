"""VocabularyEncoder: how a model reads class names, from text to embeddings."""

from collections.abc import Callable, Sequence

from torch import Tensor

from err_seg.modeling.clip import OpenCLIP
from err_seg.text.cache import TextEmbeddings
from err_seg.text.prompts import PromptStyle, check_vocabulary, tokenize_vocabulary


class VocabularyEncoder:
    """CLIP's tokenizer, the prompts for class names, and the cache of their embeddings. Threads may share one object.

    Args:
        tokenizer: maps texts and a ``context_length`` to (N, context_length) int64 tokens.
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
        self._latest: dict[tuple[tuple[str, ...], PromptStyle], Tensor] = {}

    def tokenize(self, vocabulary: Sequence[str], style: PromptStyle | None = None) -> Tensor:
        """Turn T class names into the tokens (T, P, L) of their prompts, on the CPU; the latest result is remembered.

        Raises:
            VocabularyError: names cannot be used; see :func:`err_seg.text.prompts.tokenize_vocabulary`.
        """
        key = check_vocabulary(vocabulary), style or self.style
        tokens = self._latest.get(key)
        if tokens is None:
            tokens = tokenize_vocabulary(*key, self.tokenizer, self.context_length)
            self._latest = {key: tokens}
        return tokens

    def embed(self, clip: OpenCLIP, vocabulary: Sequence[str], style: PromptStyle | None = None) -> Tensor:
        """Embed T class names to (T, D) unit vectors, without gradient; cached until the CLIP's weights change."""
        return self.embeddings(clip, self.tokenize(vocabulary, style))
