"""Letters that look like Latin ones and are not: how words are hidden from those who count them."""

import functools
import re
import unicodedata

from data.anonymize.folding import fold

LOOKALIKES = str.maketrans(
    "АВСЕНІЈКМОРЅТУХҮԌԚԜаеорсухіјѕһԁԛԝӏΑΒΕΖΗΙΚΜΝΟΡΤΥΧονικρυχα",
    "ABCEHIJKMOPSTYXYGQWaeopcyxijshdqwlABEZHIKMNOPTYXovikpuxa",
)
"""Of Cyrillic and of Greek (Unicode Technical Standard 39: confusables that are single letters in common fonts)."""
WORD = re.compile(r"[^\W\d_]+")


def undisguised(text: str) -> str:
    """A text as it looks: characters of no width left out and styled ones made plain; and in a text with Latin letters words that are Latin
    but for letters of Cyrillic and Greek which look Latin are Latin, if at least half of all letters then are. So a text in Russian stays,
    and in an English one a Russian name that has a letter which Latin lacks."""
    if text.isascii():
        return text
    found = fold(text).text
    if not any(letter.isascii() and letter.isalpha() for letter in found):
        return found
    plain = {word: word.translate(LOOKALIKES) for word in {*WORD.findall(found)}}
    latin = {word: other for word, other in plain.items() if all(map(_is_latin, other))}
    words = WORD.findall(found)
    if 2 * sum(len(word) for word in words if word in latin) < sum(map(len, words)):
        return found
    return WORD.sub(lambda word: latin.get(word[0], word[0]), found)


@functools.lru_cache(maxsize=1 << 12)
def _is_latin(letter: str) -> bool:
    return letter.isascii() or unicodedata.name(letter, "").startswith("LATIN")
