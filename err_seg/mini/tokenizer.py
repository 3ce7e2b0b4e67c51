"""A tokenizer of whole words, for a CLIP that knows a few dozen of them."""

import logging
import re
from collections.abc import Sequence

import torch
from torch import Tensor

from err_seg.messages import did_you_mean, listed
from err_seg.prompts import VocabularyError

logger = logging.getLogger(__name__)

START = 1
WORDS_SHOWN = 40


class WordTokenizer:
    """Maps texts to tokens, one per word; case and punctuation do not count.

    Token 0 is padding, 1 the start of a text, then the words follow in order, and the largest is the end of a text, as
    CLIP's text tower expects.

    Args:
        words: the words that it knows, lower case.
        context_length: tokens of a text, start and end included.
    """

    def __init__(self, words: Sequence[str], context_length: int):
        self.ids = {word: START + 1 + i for i, word in enumerate(words)}
        self.end = START + 1 + len(words)
        self.vocab_size = self.end + 1
        self.context_length = context_length
        self._told: set[str] = set()

    def __call__(self, texts: str | Sequence[str], context_length: int | None = None) -> Tensor:
        """Tokenise N texts to (N, context_length) int64; longer texts are cut, and their last token is the end of text.

        Raises:
            VocabularyError: a word that it does not know; names it and the nearest that it does.
        """
        texts = [texts] if isinstance(texts, str) else texts
        for word, text in self._unknown(texts).items():
            hint = did_you_mean(word, self.ids, f"it knows {', '.join(self.ids)}.")
            raise VocabularyError(
                f"the miniature CLIP does not know the word {word!r} of {text!r}; {hint} Names with other words need a "
                "large CLIP: see configs/err_seg_convnext_b.yaml"
            )
        return self._encode(texts, context_length or self.context_length)

    def lenient(self, texts: str | Sequence[str], context_length: int | None = None) -> Tensor:
        """Tokenise texts without the words that it does not know; a warning names each of these once."""
        texts = [texts] if isinstance(texts, str) else texts
        unknown = self._unknown(texts).keys() - self._told
        if unknown:
            self._told |= unknown
            logger.warning(
                "this model is a toy and leaves out the words that it does not know: %s. It knows %s. This command "
                "draws images for it: err-seg mini draw --split test --count 4 --output scenes. Other images and words "
                "need another model, such as err-seg-b",
                listed(sorted(unknown)),
                listed(self.ids, WORDS_SHOWN),
            )
        return self._encode(texts, context_length or self.context_length)

    def _unknown(self, texts: Sequence[str]) -> dict[str, str]:
        """Map unknown words, in order, each to a text that has it."""
        return {word: text for text in texts for word in _words(text) if word not in self.ids}

    def _encode(self, texts: Sequence[str], length: int) -> Tensor:
        tokens = torch.zeros(len(texts), length, dtype=torch.int64)
        for row, text in zip(tokens, texts, strict=True):
            known = (self.ids[word] for word in _words(text) if word in self.ids)
            ids = [START, *known][: length - 1]
            row[: len(ids) + 1] = torch.tensor([*ids, self.end])
        return tokens


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())
