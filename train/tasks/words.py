"""Words and the ids of their pieces: how labels of words, and places in a text, meet the pieces that a tokenizer cuts them into."""

import re

import numpy as np

from data.tokenizer import Tokenizer

WORD = re.compile(r"[㐀-鿿豈-﫿]|[^\W_㐀-鿿豈-﫿]+|[^\w\s]|_")
"""A Chinese character, a run of letters and digits, or one other character."""


def word_spans(text: str) -> list[tuple[int, int]]:
    """Where words begin and end in a text."""
    return [found.span() for found in WORD.finditer(text)]


class WordEncoder:
    """Words to ids, each encoded once: a word inside a text with a space before it, unless it stands close to the one before."""

    def __init__(self, tokenizer: Tokenizer):
        self._tokenizer = tokenizer
        self._known: dict[str, np.ndarray] = {}

    def __call__(self, words: list[str], spaced: list[bool]) -> list[np.ndarray]:
        """The ids of each word, perhaps none. spaced: whether a space stands before each; the first is never asked."""
        return [
            self._ids(f" {word}" if number and space else word, bool(number))
            for number, (word, space) in enumerate(zip(words, spaced, strict=True))
        ]

    def _ids(self, word: str, inside: bool) -> np.ndarray:
        key = f"{int(inside)}{word}"
        if key not in self._known:
            self._known[key] = self._tokenizer.encode_inside(word) if inside else self._tokenizer.encode(word)
        return self._known[key]


def spaces(words: list[str]) -> list[bool]:
    """Whether a space stands before each word of a sentence that is given as words: not between two Chinese characters."""
    chinese = [bool(word) and "㐀" <= word[0] <= "鿿" for word in words]
    return [number > 0 and not (chinese[number] and chinese[number - 1]) for number in range(len(words))]
