"""What a student's answer has of a reference: words in common, points that are there or missing, and answers that are none."""

import functools
import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from data.clean.language import WORDS, languages_of
from data.clean.units import units_of
from train.tasks.words import words

Vectors = Callable[[Sequence[str]], np.ndarray]
"""Texts to vectors of unit length [N, D]."""

ENDINGS = ("ations", "ation", "ings", "ing", "ies", "ed", "es", "ly", "s")
"""Of English words. What is left has three letters at least."""
LONGEST = 4_000
"""Characters of a text that are read. The patterns below are bounded, but there is no short answer that is longer."""
MOST_CLAUSES = 100
"""Of a text; the last one is all that follows."""
CLAUSE = re.compile(r"[^.;:!?。！？；\n]+")
PART = re.compile(r",\s++(?:and\s++)?|(?<!\s)\s++(?:and|but|while|whereas)\s++")
PLEA = re.compile(
    r"\b(?:ignore|disregard|forget)\b[^.!?\n]{0,100}\b(?:instructions?|prompts?|rubric)\b"
    # An answer may well ignore what is above it, or a reference.
    r"|\b(?:ignore|disregard|forget)\b[^.!?\n]{0,60}\b(?:reference|above)\b[^.!?\n]{0,40}\b(?:graders?|teachers?|examiners?|grades?|grading|marking)\b"
    r"|\b(?:give|award|grant)\b[^.!?\n]{0,30}\b(?:full|maximum|all|top|highest|best|good|[0-9]+)\b[^.!?\n]{0,20}\b(?:marks?|points?|scores?|credits?|grades?)\b"
    r"|\b(?:full|maximum|top)\s+(?:marks?|points?|scores?|credits?|grades?)\b"
    r"|\bdear\s+(?:grader|teacher|professor|examiner|sir)\b|\bplease\b[^.!?\n]{0,30}\b(?:pass|grade|mark)\b"
    r"|\bthis answer is (?:correct|right|perfect)\b|\bscore\s*(?:this|me|it)?\s*(?:as|:|=)\s*[0-9]"
)
UNKNOWING = re.compile(
    r"\W*+(?:(?:sorry|well|hmm)\W++)?(?:(?:(?:i\s+)?(?:do\s+not|don['’]?t)\s+(?:know|remember)|(?:i\s+have\s+)?no\s+(?:idea|clue)"
    r"|(?:i\s+am\s+|i['’]?m\s+)?not\s+sure)\b(?:\s+(?:what|how|why|if|whether|which|where|who)\b(?:(?!\bbut\b)[^.,;:!?]){0,40}+)?"
    r"|(?:idk|no\s+answer|n\s?/?\s?a|none)\b)"
    # No more than what goes with it: "None of the elements" is an answer.
    r"(?:\s+(?:the|this|that|it|answer|question|about|anything|at|all|here|yet|to|say|write|do|is|sorry))*+"
    r"\W*+(?:(?:sorry|thanks?|thank\s+you)\b)?\W*+"
)
FEW = 3
"""Words of a part of a sentence that stands for itself."""
NEAR = 0.6
"""Cosine of vectors from which on a part of an answer says what a point says."""
HALF = 0.5
"""Share of a point's words from which on an answer has it."""
COPIED = 0.8
"""Share of the reference's runs of four words, in an answer that is hardly longer."""
FEWEST = 6
"""Words of an answer, from which on a list of key words can be told, and a copy."""


def plain(text: str) -> str:
    """One space between words, so that how they are set apart changes no score."""
    return " ".join(text.split())


@functools.cache
def function_words() -> frozenset[str]:
    return frozenset(word for some in WORDS.values() for word in some.split())


@functools.lru_cache(maxsize=1 << 16)
def stem(word: str) -> str:
    for ending in ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            return word[: -len(ending)]
    return word


def content(text: str) -> list[str]:
    """Stems of the words that are not merely grammatical."""
    return [stem(word) for word in words(text) if word not in function_words()]


def _share(part: set, whole: set) -> float:
    return len(part) / len(whole) if whole else 0.0


def _trigrams(text: str) -> Counter[str]:
    joined = " ".join(words(text))
    return Counter(joined[place : place + 3] for place in range(len(joined) - 2))


def _cosine(one: Counter[str], other: Counter[str]) -> float:
    size = math.sqrt(sum(n * n for n in one.values()) * sum(n * n for n in other.values()))
    return sum(often * other[gram] for gram, often in one.items()) / size if size else 0.0


def overlap(question: str, reference: str, answer: str) -> list[float]:
    """Eight numbers: how much of the reference's words the answer has, of its own words are the reference's, of those that the question
    does not say already it has, of its own are not the question's; how alike triples of characters are; pairs of words; both lengths."""
    ours, theirs, asked = ({*content(text)} for text in (answer, reference, question))
    said, wanted = words(answer), words(reference)
    pairs, wanted_pairs = ({*zip(found, found[1:], strict=False)} for found in ([*map(stem, said)], [*map(stem, wanted)]))
    return [
        _share(ours & theirs, theirs),
        _share(ours & theirs, ours),
        _share(ours & theirs - asked, theirs - asked),
        _share(ours - asked, ours),
        _cosine(_trigrams(reference), _trigrams(answer)),
        _share(pairs & wanted_pairs, wanted_pairs),
        math.log1p(len(said)),
        math.log1p(len(wanted)),
    ]


# ------------------------------------------------------------------------------------------------------------------ points


class Point(NamedTuple):
    """A clause of the reference, and the part of the answer that says it: places in both texts."""

    start: int
    end: int
    matched: bool
    nearness: float
    span: tuple[int, int] | None


def clauses(text: str) -> list[tuple[int, int]]:
    """Places of sentences and their parts, each with at least FEW words that are not merely grammatical; shorter ones go with the one
    before."""
    found: list[tuple[int, int]] = []
    for sentence in CLAUSE.finditer(text):
        begin = last = sentence.start()
        fresh = 0  # words since `begin` that are not merely grammatical
        ends = [(cut.start() + begin, cut.end() + begin) for cut in PART.finditer(sentence[0])] + [(sentence.end(), sentence.end())]
        first = len(found)
        for end, after in ends:
            fresh, last = fresh + len(content(text[last:end])), end
            if fresh >= FEW:
                found.append((begin, end))
            elif len(found) > first:
                found[-1] = (found[-1][0], end)
            elif end == sentence.end() and text[begin:end].strip():
                found.append((begin, end))
            else:
                continue  # goes with the next part
            begin, last, fresh = after, after, 0
    if len(found) > MOST_CLAUSES:
        found[MOST_CLAUSES - 1 :] = [(found[MOST_CLAUSES - 1][0], found[-1][1])]
    trimmed = [
        (start + len(text[start:end]) - len(text[start:end].lstrip()), start + len(text[start:end].rstrip())) for start, end in found
    ]
    return [(start, end) for start, end in trimmed if start < end]


def points(reference: str, answer: str, vectors: Vectors | None = None) -> list[Point]:
    """Each clause of the reference: whether the answer has half of its words, or a part that is near it by its vector. What an answer
    denies counts as said: words and vectors hardly tell."""
    wanted, given = clauses(reference), clauses(answer)
    stems = [{*content(reference[start:end])} for start, end in wanted]
    parts = [{*content(answer[start:end])} for start, end in given]
    everything = {*content(answer)}
    near_NM = np.zeros((len(wanted), len(given)))
    if vectors is not None and wanted and given:
        both = vectors([*(reference[start:end] for start, end in wanted), *(answer[start:end] for start, end in given)])
        near_NM = np.clip(both[: len(wanted)] @ both[len(wanted) :].T, 0, 1)
    found = []
    for number, (start, end) in enumerate(wanted):
        share = _share(stems[number] & everything, stems[number])
        by_part = [max(near_NM[number, place], _share(stems[number] & part, stems[number])) for place, part in enumerate(parts)]
        best = int(np.argmax(by_part)) if by_part else -1
        matched = share >= HALF or (best >= 0 and near_NM[number].max() >= NEAR)
        nearness = max([share, *by_part])
        found.append(Point(start, end, bool(matched), round(float(nearness), 4), given[best] if matched and best >= 0 else None))
    return found


# ------------------------------------------------------------------------------------------------------------------ no answers


def without_plea(answer: str) -> str:
    """The answer without the sentences that ask the grader for something, also where one goes over the end of a line."""
    kept = _without(answer, r"(?<=[.!?\n])")
    return _without(plain(kept), r"(?<=[.!?])") if PLEA.search(plain(kept.lower())) else kept


def _without(text: str, between: str) -> str:
    return "".join(part for part in re.split(between, text) if not PLEA.search(part.lower()))


def oddities(question: str, reference: str, answer: str) -> list[str]:
    """What makes an answer one for a person: blank, unknown, plea, language, copied, keywords."""
    if not words(answer):
        return ["blank"]
    lowered = plain(answer.lower())
    if UNKNOWING.fullmatch(lowered):
        return ["unknown"]
    found = ["plea"] if PLEA.search(lowered) else []
    theirs, ours = languages_of(units_of([f"{question} {reference}", answer]))
    if len(words(answer)) >= 3 and ours.language and theirs.language and ours.language != theirs.language and ours.share >= 0.5:
        found.append("language")
    said, wanted = words(answer), words(reference)
    runs, wanted_runs = ({*zip(*(some[place:] for place in range(4)), strict=False)} for some in (said, wanted))
    if len(wanted) >= FEWEST and _share(runs & wanted_runs, wanted_runs) >= COPIED and len(said) <= 1.25 * len(wanted):
        found.append("copied")
    if len(said) >= FEWEST:
        grammatical = sum(word in function_words() for word in said) / len(said)
        in_reference = sum(grammar in function_words() for grammar in wanted) / max(len(wanted), 1)
        ours_, theirs_ = Counter(content(answer)), {*content(reference)}
        repeated = ours_ and max(ours_.values()) >= max(4, 0.3 * len(said))
        many = _share({*ours_} & theirs_, {*ours_}) >= HALF
        if repeated or (many and grammatical <= 0.1 < in_reference):
            found.append("keywords")
    return found


# ------------------------------------------------------------------------------------------------------------------ a line through points


class Ridge(NamedTuple):
    """A linear function of standardised numbers."""

    mean: list[float]
    deviation: list[float]
    weights: list[float]
    bias: float

    def __call__(self, x_NF: Any) -> np.ndarray:
        """float64 [N]."""
        x_NF = np.asarray(x_NF, np.float64).reshape(-1, len(self.mean))
        return (x_NF - self.mean) / self.deviation @ np.array(self.weights) + self.bias


def ridge(x_NF: Any, y_N: Any, alpha: float = 1.0) -> Ridge:
    """The weights that minimise squared errors plus alpha times their squares (Hoerl and Kennard 1970)."""
    x_NF, y_N = np.asarray(x_NF, np.float64), np.asarray(y_N, np.float64)
    mean, deviation = x_NF.mean(0), x_NF.std(0) + 1e-9
    z_NF = (x_NF - mean) / deviation
    weights = np.linalg.solve(z_NF.T @ z_NF + alpha * np.eye(z_NF.shape[1]), z_NF.T @ (y_N - y_N.mean()))
    return Ridge(mean.tolist(), deviation.tolist(), weights.tolist(), float(y_N.mean()))


def feedback(reference: str, answer: str, there: list[Point], *, hide: bool, odd: list[str]) -> str:
    """What a student may be told."""
    if "blank" in odd:
        return "There is no answer."
    if "unknown" in odd:
        return "Write down what you do know: a part of an answer is worth something."
    said = ["What a grader reads is the answer alone."] if "plea" in odd else []
    total = len(there)
    had = [(number, one) for number, one in enumerate(there, 1) if one.matched]
    missing = [(number, one) for number, one in enumerate(there, 1) if not one.matched]
    for number, one in had:
        quote = f': "{answer[one.span[0] : one.span[1]].strip()}"' if one.span is not None else ""
        said.append(f"You have point {number} of {total}{quote}.")
    for number, one in missing:
        named = "" if hide else f": {reference[one.start : one.end]}"
        said.append(f"Point {number} of {total} is missing{named}.")
    return " ".join(said)
