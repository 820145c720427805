"""Answers to questions: exact ones, and the words that they share with true ones."""

import re
import string
from collections import Counter
from collections.abc import Sequence

import numpy as np

from train.tasks.metrics.scores import Scores, check_pairs, mean_of
from train.tasks.metrics.words import WITHOUT_SPACES, units


def span_scores(answers: Sequence[Sequence[str]], predicted: Sequence[str], language: str = "en") -> Scores:
    """Exact match and F1 of SQuAD (Rajpurkar et al. 2016, sec. 6.1), as shares from 0 to 1, of the best of the true answers.

    predicted: one text each; "" says that there is no answer. answers: the true ones; none where there is none (SQuAD 2.0), and then the
    parts `has_answer_exact`, `has_answer_f1` and `no_answer_accuracy` are given too. language: see `normal_words`.
    """
    exact, f1 = score_each(answers, predicted, language)
    parts = {"exact": exact, "f1": f1}
    has = np.array([bool(true) for true in answers])
    values = {name: float(one.mean()) for name, one in parts.items()}
    if not has.all():
        values["no_answer_accuracy"] = float(exact[~has].mean())
        if has.any():
            values |= {f"has_answer_{name}": float(one[has].mean()) for name, one in parts.items()}
    return Scores(values, {}, {name: mean_of(one) for name, one in parts.items()})


def score_each(answers: Sequence[Sequence[str]], predicted: Sequence[str], language: str = "en") -> tuple[np.ndarray, np.ndarray]:
    """Exact match and F1 of each question, [N] both."""
    check_pairs(answers, predicted)
    exact, f1 = np.zeros(len(answers)), np.zeros(len(answers))
    for number, (text, true) in enumerate(zip(predicted, answers, strict=True)):
        given = normal_words(text, language)
        wanted = [normal_words(answer, language) for answer in true]
        wanted = [words for words in wanted if words] or [[]]  # an answer of punctuation alone asks for nothing
        exact[number] = max(given == words for words in wanted)
        f1[number] = max(overlap(given, words) for words in wanted)
    return exact, f1


def normal_words(text: str, language: str) -> list[str]:
    """The words of an answer, in lower case, without ASCII punctuation and, in English, without articles, as SQuAD compares them.

    Chinese and Japanese by characters without any punctuation, as multilingual question answering does (Lewis et al. 2020, MLQA). The
    script of CMRC 2018 takes the longest common part of characters instead of the shared ones: its F1 is never higher.
    """
    if language in WITHOUT_SPACES:
        return units(text, language)
    words = re.sub(f"[{re.escape(string.punctuation)}]", "", text.lower())
    words = re.sub(r"\b(?:a|an|the)\b", " ", words) if language == "en" else words
    return words.split()


def overlap(given: Sequence[str], wanted: Sequence[str]) -> float:
    """F1 of two bags of words. Two empty ones are the same."""
    if not given or not wanted:
        return float(not given and not wanted)
    shared = (Counter(given) & Counter(wanted)).total()
    return 2 * shared / (len(given) + len(wanted))
