"""Counterfactual swaps of words, such as he and she: a classifier that answers the same question of both should not change its answer (Garg
et al. 2019, counterfactual token fairness; Zhao et al. 2018, gender swapping)."""

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from data.errors import UserError
from data.files.text_files import read_text, split_lines
from train.tasks.metrics.bootstrap import bootstrap_sums
from train.tasks.metrics.scores import mean_of

SHOWN = 5
"""Examples that changed most."""
_LETTER = re.compile(r"[^\W\d_㐀-鿿豈-﫿぀-ヿ]")
"""One of a script that has spaces between words. Chinese and Japanese words are found wherever they stand."""


class Swaps:
    """Pairs of words, each of which stands for the other.

    pairs: (first, second). ValueError for a word that stands twice: which word would take its place?
    """

    def __init__(self, pairs: Sequence[tuple[str, str]]):
        self._other: dict[str, tuple[str, str]] = {}
        self._first = {first.casefold() for first, _ in pairs}
        for pair in pairs:
            for word, other in (pair, pair[::-1]):
                if word.casefold() in self._other:
                    raise ValueError(f"{word!r} stands twice")
                self._other[word.casefold()] = (word, other)
        # As it is given, too: a letter such as İ is two when folded.
        longest_first = sorted({*self._other, *(word for pair in pairs for word in pair)}, key=len, reverse=True)
        self._found = re.compile("|".join(map(_whole, longest_first)), re.IGNORECASE)

    def swapped(self, text: str) -> str:
        """The text with each word replaced by the other of its pair, written as it is written: small, with a capital, or all in
        capitals."""

        def other(found: re.Match) -> str:
            pair = self._other.get(found[0].casefold())
            return found[0] if pair is None else _as(found[0], *pair)  # an i is found for an İ, which it is not

        return self._found.sub(other, text)

    def sides(self, text: str) -> tuple[int, int]:
        """How many first words and how many second words of pairs a text has."""
        found = [word for one in self._found.findall(text) if (word := one.casefold()) in self._other]
        first = sum(word in self._first for word in found)
        return first, len(found) - first


def read_swaps(path: str) -> Swaps:
    """The pairs of a file, one a line with a comma between. UserError for anything else, and for a word that stands twice."""
    pairs, mend = [], "Give a pair of words a line, such as he,she, each word in one pair only."
    for number, line in enumerate(split_lines(read_text(path)), 1):
        if not line.strip():
            continue
        words = tuple(word.strip() for word in line.split(","))
        if len(words) != 2 or not all(words) or words[0].casefold() == words[1].casefold():
            raise UserError(f"{path}: line {number}: {line.strip()!r} is no pair of words", mend)
        pairs.append((words[0], words[1]))
        try:
            swaps = Swaps(pairs)
        except ValueError as error:
            raise UserError(f"{path}: line {number}: {error}", mend) from None
    if not pairs:
        raise UserError(f"{path}: holds no words", mend)
    return swaps


def _whole(word: str) -> str:
    """A pattern of a word that is no part of a longer one."""
    before = r"(?<![^\W_])" if _LETTER.match(word[0]) else ""
    return before + re.escape(word) + (r"(?![^\W_])" if _LETTER.match(word[-1]) else "")


def _as(found: str, own: str, other: str) -> str:
    if found == own:
        return other
    if len(found) > 1 and found.isupper():
        return other.upper()
    if found[:1].isupper():
        return other[:1].upper() + other[1:]
    return other.lower() if found.islower() else other


class Swapped(NamedTuple):
    """A text that has words of pairs, before and after the swap. sides: how many first and second words it had."""

    text: str
    swapped: str
    sides: tuple[int, int]


def swap_scores(texts: Sequence[Swapped], before_NC: np.ndarray, after_NC: np.ndarray, names: Sequence[str], positive: str = "") -> dict:
    """What swaps change. before_NC, after_NC: probabilities of classes. positive: the class whose probability is compared; empty: all.

    Returns {"examples", "changed": share of other answers, "mean_change", "intervals": {name: [low, high]} of these two, "shift": {class:
    {"mean", "low", "high", "examples"}}, "most": examples}. A change is the largest share of probability that moves (total variation), or
    with `positive` that of this class. A shift has a sign: the probability with second words of pairs minus that with first ones, of texts
    that have words of one side alone; {} where there are none.
    """
    before_NC, after_NC = np.asarray(before_NC, np.float64), np.asarray(after_NC, np.float64)
    moved_NC = after_NC - before_NC
    compared = [names.index(positive)] if positive else list(range(len(names)))
    change_N = np.abs(moved_NC[:, compared]).sum(-1) / (1 if positive else 2)
    first_N, second_N = before_NC.argmax(-1), after_NC.argmax(-1)
    other_N = (first_N != second_N).astype(np.float64)
    sign_N = np.array([(a > 0) - 1.0 * (b > 0) for a, b in (text.sides for text in texts)])
    one_sided_N, shift = sign_N != 0, {}
    for place in compared if one_sided_N.any() else []:
        shift_M = (sign_N * moved_NC[:, place])[one_sided_N]
        low, high = bootstrap_sums(*mean_of(shift_M))
        shift[names[place]] = {"mean": float(shift_M.mean()), "low": low, "high": high, "examples": len(shift_M)}
    most: list[dict[str, Any]] = [
        {
            "text": texts[number].text,
            "swapped": texts[number].swapped,
            "answer": names[int(first_N[number])],
            "swapped_answer": names[int(second_N[number])],
            "change": float(change_N[number]),
        }
        for number in np.argsort(-change_N, kind="stable")[:SHOWN].tolist()
    ]
    values = {"changed": other_N, "mean_change": change_N}
    intervals = {name: list(bootstrap_sums(*mean_of(value_N))) for name, value_N in values.items()}
    means = {name: float(value_N.mean()) for name, value_N in values.items()}
    return {"examples": len(texts), **means, "intervals": intervals, "shift": shift, "most": most}
