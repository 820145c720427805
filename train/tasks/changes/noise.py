"""Small changes of texts: words and what stands between them, typing errors, and characters that look alike."""

import numpy as np

from train.tasks.words import word_spans

Words = list[tuple[str, str]]
"""A text as (what stands before a word, the word) and, last, (what stands behind the last word, nothing)."""

KEYS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
"""Rows of a keyboard: a slip of the finger hits a neighbour."""
LOOKALIKES = {
    **dict(zip("aceijopsxy", "\u0430\u0441\u0435\u0456\u0458\u043e\u0440\u0455\u0445\u0443", strict=True)),
    **dict(zip("ABCEHIKMOPTX", "\u0410\u0412\u0421\u0415\u041d\u0406\u041a\u041c\u041e\u0420\u0422\u0425", strict=True)),
}
"""Latin letters, and Cyrillic ones that most fonts draw the same."""
ZERO_WIDTH = "\u200b"


def split_words(text: str) -> Words:
    """The words of a text; Chinese characters are words."""
    found, end = [], 0
    for first, last in word_spans(text):
        found.append((text[end:first], text[first:last]))
        end = last
    return [*found, (text[end:], "")]


def join_words(words: Words) -> str:
    return "".join(before + word for before, word in words)


def typing_errors(word: str) -> list[str]:
    """What a word becomes by one slip: two letters swapped, one dropped, one hit beside its key. The first letter stays; none for words of
    fewer than three letters."""
    if len(word) < 3:
        return []
    found = [word[:i] + word[i + 1] + word[i] + word[i + 2 :] for i in range(1, len(word) - 1)]
    found += [word[:i] + word[i + 1 :] for i in range(1, len(word))]
    for place, letter in enumerate(word[1:], 1):
        row = next((row for row in KEYS if letter.lower() in row), "")
        beside = [row[at] for at in (row.find(letter.lower()) - 1, row.find(letter.lower()) + 1) if row and 0 <= at < len(row)]
        found += [word[:place] + (key.upper() if letter.isupper() else key) + word[place + 1 :] for key in beside]
    return [one for one in dict.fromkeys(found) if one != word]


def lookalikes(word: str) -> list[str]:
    """What a word becomes if one of its letters, or all, are replaced by others that look the same, or a space of no width is put in."""
    found = [word[:i] + LOOKALIKES[letter] + word[i + 1 :] for i, letter in enumerate(word) if letter in LOOKALIKES]
    found.append("".join(LOOKALIKES.get(letter, letter) for letter in word))
    found.append(word[: (len(word) + 1) // 2] + ZERO_WIDTH + word[(len(word) + 1) // 2 :])
    return [one for one in dict.fromkeys(found) if one != word]


def some(options: list[str], count: int, draw: np.random.Generator) -> list[str]:
    """So many of the options at most, in their order."""
    if len(options) <= count:
        return options
    return [options[place] for place in np.sort(draw.choice(len(options), count, replace=False))]
