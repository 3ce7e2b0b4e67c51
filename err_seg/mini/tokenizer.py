"""A tokenizer of whole words, for a CLIP with a vocabulary of a few dozen."""

import re
from collections.abc import Sequence

import torch
from torch import Tensor

from err_seg.text.prompts import VocabularyError
from err_seg.utils.messages import did_you_mean, listed

START = 1
WORDS_SHOWN = 40


class WordTokenizer:
    """Maps texts to tokens, one per word; case and punctuation do not count.

    Token 0 is padding, 1 the start of a text, then the words follow in order, and the largest is the end of a text, as
    CLIP's text tower expects.

    Args:
        words: all words, lower case.
        context_length: tokens of a text, start and end included.
    """

    def __init__(self, words: Sequence[str], context_length: int):
        self.ids = {word: START + 1 + i for i, word in enumerate(words)}
        self.end = START + 1 + len(words)
        self.vocab_size = self.end + 1
        self.context_length = context_length

    def __call__(self, texts: str | Sequence[str], context_length: int | None = None) -> Tensor:
        """Tokenise N texts to (N, context_length) int64; longer texts are cut, and their last token is the end of text.

        Raises:
            VocabularyError: another word; names it and the nearest of the words.
        """
        length = context_length or self.context_length
        texts = [texts] if isinstance(texts, str) else texts
        tokens = torch.zeros(len(texts), length, dtype=torch.int64)
        for row, text in zip(tokens, texts, strict=True):
            ids = [START, *(self._id(word, text) for word in re.findall(r"\w+", text.lower()))][: length - 1]
            row[: len(ids) + 1] = torch.tensor([*ids, self.end])
        return tokens

    def _id(self, word: str, text: str) -> int:
        if word in self.ids:
            return self.ids[word]
        hint = did_you_mean(word, [known for known in self.ids if len(known) > 2], "")  # not "of" for "sofa"
        raise VocabularyError(
            f"this model, which was trained on a small synthetic data set, does not support the word {word!r} of "
            f"{text!r}{'; ' + hint if hint else '.'} It supports {listed(self.ids, WORDS_SHOWN)}. This command draws "
            "images for it: err-seg mini draw --split test --count 4 --output scenes. For other images and words use "
            "another model, such as err-seg-b"
        )
