"""What is decided on a document by itself, in this order: pages of C4, language, documents of Gopher, forbidden words, a classifier."""

import functools
from collections.abc import Sequence
from typing import NamedTuple

from data.clean import quality
from data.clean.classifier import Classifier, load_classifier
from data.clean.forbidden import ForbiddenWords
from data.clean.language import languages_of
from data.clean.quality import Reason
from data.clean.units import Units, units_of


class Rules(NamedTuple):
    """languages: codes of those that stay; () for all. forbidden, classifier: files with their digests, or None. threshold: of the
    classifier; 0 for its own."""

    gopher: bool
    c4: bool
    languages: tuple[str, ...]
    forbidden: tuple[str, str] | None
    classifier: tuple[str, str] | None
    threshold: float

    def judge(self, texts: Sequence[str]) -> tuple[list[str], Units, list[Reason | None]]:
        """Texts as they stay (C4 takes lines out), their units, and for each the first rule that it breaks."""
        reasons: list[Reason | None] = [None] * len(texts)
        judged = list(texts)
        if self.c4:
            for place, text in enumerate(texts):
                judged[place], reasons[place] = quality.c4(text, quality.words_in)
        units = units_of(judged)
        if self.gopher or self.languages:
            guesses = languages_of(units)
            for place, guess in enumerate(guesses):
                if self.languages and guess.language not in self.languages:
                    reasons[place] = reasons[place] or Reason("language", guess.language or "unknown")
            for place in range(len(judged) if self.gopher else 0):
                reasons[place] = reasons[place] or quality.gopher(judged[place], units.of(place), guesses[place])
        if self.forbidden:
            for place, entry in _forbidden(*self.forbidden).find(units).items():
                reasons[place] = reasons[place] or Reason("forbidden_word", entry)
        left = [place for place, reason in enumerate(reasons) if reason is None]
        if self.classifier and left:
            classifier = _classifier(*self.classifier)
            for place, score in zip(left, classifier([judged[place] for place in left]).tolist(), strict=True):
                if score >= (self.threshold or classifier.threshold):
                    reasons[place] = Reason("classifier", round(score, 4))
        return judged, units, reasons


@functools.cache
def _forbidden(path: str, digest: str) -> ForbiddenWords:
    return ForbiddenWords(path)


@functools.cache
def _classifier(path: str, digest: str) -> Classifier:
    return load_classifier(path)
