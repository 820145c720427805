"""Texts found by their words: BM25 (Robertson and Zaragoza 2009, eq. 3.15), with the logarithm that is never negative (as in Lucene)."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from train.tasks.words import words

K1, B = 1.2, 0.75
"""How fast a word that comes again counts less, and how much longer texts count less: the usual values."""


class WordIndex:
    """Texts to be found by the words of a question."""

    def __init__(self, texts: Sequence[str]):
        counts = [Counter(words(text)) for text in texts]
        self._lengths = np.array([count.total() for count in counts], np.float64)
        self._mean = max(float(self._lengths.mean()) if len(texts) else 0.0, 1.0)
        places: dict[str, list[tuple[int, int]]] = {}
        for place, count in enumerate(counts):
            for word, often in count.items():
                places.setdefault(word, []).append((place, often))
        self._found = {word: np.array(there) for word, there in places.items()}
        self._texts = len(texts)

    def _rarity(self, texts: int) -> float:
        """Of a word that so many of the texts have."""
        return float(np.log1p((self._texts - texts + 0.5) / (texts + 0.5)))

    def scores(self, question: str) -> np.ndarray:
        """float64 [N], of each text; 0 for one that has no word of the question."""
        found = np.zeros(self._texts)
        for word, often in Counter(words(question)).items():
            if (there := self._found.get(word)) is not None:
                place, count = there[:, 0], there[:, 1]
                room = K1 * (1 - B + B * self._lengths[place] / self._mean)
                found[place] += often * self._rarity(len(there)) * count * (K1 + 1) / (count + room)
        return found

    def shares(self, question: str) -> np.ndarray:
        """float64 [N], 0 to 1: of the score that the question itself would have, were it one more of the texts. So it says how much of the
        question a text has, whatever the question; words that no text has count as the rarest."""
        asked = Counter(words(question))
        room = K1 * (1 - B + B * asked.total() / self._mean)
        own = sum(often * self._rarity(len(self._found.get(word, ()))) * often * (K1 + 1) / (often + room) for word, often in asked.items())
        return np.minimum(self.scores(question) / own, 1.0) if own else np.zeros(self._texts)
