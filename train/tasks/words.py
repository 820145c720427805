"""Words and the ids of their pieces: how labels of words, and places in a text, meet the pieces that a tokenizer cuts them into."""

import re
from collections.abc import Sequence

import numpy as np

from data.anonymize.folding import fold
from data.tokenizer import Tokenizer

WORD = re.compile(r"[㐀-鿿豈-﫿]|[^\W_㐀-鿿豈-﫿]+|[^\w\s]|_")
"""A Chinese character, a run of letters and digits, or one other character."""

ENDS = frozenset("。！？!?；;")
"""Characters behind which a sentence may end. A full stop also ends abbreviations, such as those before names."""


def word_spans(text: str) -> list[tuple[int, int]]:
    """Where words begin and end in a text."""
    return [found.span() for found in WORD.finditer(text)]


_RUNS = re.compile(r"[㐀-鿿豈-﫿぀-ヿ]+|[^\W_]+")
_UNSPACED = re.compile(r"[㐀-鿿豈-﫿぀-ヿ]")
"""Writing without spaces and other words, and what tells the first."""


def words(text: str) -> list[str]:
    """What a text is searched by: words in lower case; of writing without spaces, such as Chinese, each character and each pair of
    neighbours."""
    found: list[str] = []
    for run in _RUNS.findall(fold(text).text.lower()):
        if _UNSPACED.match(run):
            found += [*run, *(run[place : place + 2] for place in range(len(run) - 1))]
        else:
            found.append(run)
    return found


REMEMBERED = 100_000
"""Words whose ids are kept."""


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
            if len(self._known) >= REMEMBERED:
                self._known.clear()
            self._known[key] = self._tokenizer.encode_inside(word) if inside else self._tokenizer.encode(word)
        return self._known[key]


def spaces(words: list[str]) -> list[bool]:
    """Whether a space stands before each word of a sentence that is given as words: not between two Chinese characters."""
    chinese = [bool(word) and "㐀" <= word[0] <= "鿿" for word in words]
    return [number > 0 and not (chinese[number] and chinese[number - 1]) for number in range(len(words))]


def windows_of(words: Sequence[str], sizes: Sequence[int], room: int) -> list[tuple[int, int, tuple[int, int]]]:
    """[(first word, end, (first, end) of those that are its own)] of windows of at most `room` ids, which own each word once.

    sizes: ids of each word. A word that is too long for a window is alone in one.
    """
    found: list[tuple[int, int, tuple[int, int]]] = []
    first = 0
    while first < len(words):
        end, total = first, 0
        while end < len(words) and (end == first or total + sizes[end] <= room):
            total, end = total + sizes[end], end + 1
        if end == len(words):
            found.append((first, end, (first, end)))
            break
        cut = next((place for place in range(end, first, -1) if words[place - 1] in ENDS), 0)
        if cut:
            found.append((first, cut, (first, cut)))
            first = cut
            continue
        # In the middle of a sentence: the last quarter is read again, and its halves belong to either side.
        back = max((end - first) // 4, 1) if end - first > 1 else 0
        middle = end - back // 2
        found.append((first, end, (first, middle)))
        first = end - back
    return _owned(found)


def _owned(found: list[tuple[int, int, tuple[int, int]]]) -> list[tuple[int, int, tuple[int, int]]]:
    """A window owns nothing that one before it does."""
    taken, kept = 0, []
    for first, end, (_, last) in found:
        kept.append((first, end, (max(taken, first), last)))
        taken = last
    return kept
