"""Written texts against true ones: translations, summaries, corrections, transcripts."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from data.errors import UserError
from train.tasks.metrics.scores import Additive, Scores, check_pairs, load, mean_of
from train.tasks.metrics.words import WITHOUT_SPACES, units

_TOKENIZERS = {"zh": "zh", "ja": "char", "ko": "char"}
"""Of sacrebleu, for languages whose words its usual one does not find."""


def text_scores(references: Sequence[Sequence[str]], predicted: Sequence[str], measures: Sequence[str], language: str = "en") -> Scores:
    """bleu, chrf, rouge, wer, cer, exact and contains: those that are asked for. references: all right texts of each example.

    language: of the texts; it decides what is counted: of Chinese and Japanese characters.
    """
    check_pairs(references, predicted)
    made = [_MEASURES[name](references, predicted, language) for name in measures]
    values: dict[str, float] = {}
    tables: dict[str, list[dict[str, Any]]] = {}
    found: dict[str, Any] = {}
    for scores in made:
        values |= scores.values
        found |= scores.measures
        for name, rows in scores.tables.items():
            tables[name] = tables.get(name, []) + rows
    return Scores(values, tables, found)


def _bleu(references: Sequence[Sequence[str]], predicted: Sequence[str], language: str) -> Scores:
    """BLEU (Papineni et al. 2002) of sacrebleu (Post 2018), 0 to 100, with its signature."""
    library = load("sacrebleu.metrics", "sacrebleu")
    tokenizer = _TOKENIZERS.get(language, "13a")
    scores = _sacre("bleu", library.BLEU(tokenize=tokenizer), references, predicted)
    single = library.BLEU(tokenize=tokenizer, effective_order=True)  # counts alone are taken, which do not depend on that
    each = [single.sentence_score(text, list(true)) for text, true in zip(predicted, references, strict=True)]
    parts_NP = np.array([[*one.counts, *one.totals, one.sys_len, one.ref_len] for one in each], np.float64)

    def of(sums: np.ndarray) -> np.ndarray:
        rows = np.rint(sums).astype(int).tolist()
        return np.array([library.BLEU.compute_bleu(row[:4], row[4:8], row[8], row[9], "exp").score for row in rows])

    return scores._replace(measures={"bleu": Additive(parts_NP, of)})


def _chrf(references: Sequence[Sequence[str]], predicted: Sequence[str], language: str) -> Scores:
    """chrF (Popović 2015) of sacrebleu, 0 to 100, with its signature."""
    metric = load("sacrebleu.metrics", "sacrebleu").CHRF()
    # What each text adds, and the score of sums, have no public names there; a test holds them to the score.
    parts_NP = np.array(metric._extract_corpus_statistics(list(predicted), _columns(references)), np.float64)

    def of(sums: np.ndarray) -> np.ndarray:
        return np.array([metric._compute_f_score(row) for row in np.rint(sums).astype(int).tolist()])

    return _sacre("chrf", metric, references, predicted)._replace(measures={"chrf": Additive(parts_NP, of)})


def _sacre(name: str, metric: Any, references: Sequence[Sequence[str]], predicted: Sequence[str]) -> Scores:
    score = float(metric.corpus_score(list(predicted), _columns(references)).score)
    return Scores({name: score}, {"signatures": [{"metric": name, "signature": str(metric.get_signature())}]})


def _columns(references: Sequence[Sequence[str]]) -> list[list[str | None]]:
    """As sacrebleu takes them: the first of each example, then the second, None where there is none."""
    return [[one[number] if number < len(one) else None for one in references] for number in range(max(map(len, references)))]


def _rouge(references: Sequence[Sequence[str]], predicted: Sequence[str], language: str) -> Scores:
    """F1 of ROUGE-1, ROUGE-2 and ROUGE-L (Lin 2004) of rouge-score, 0 to 1, of the best of the references.

    English: its own words, cut by Porter's stemmer. Others: words of any alphabet; Chinese and Japanese characters.
    """
    library = load("rouge_score.rouge_scorer", "rouge-score")
    kinds = ("rouge1", "rouge2", "rougeL")
    scorer = library.RougeScorer(kinds, use_stemmer=True) if language == "en" else library.RougeScorer(kinds, tokenizer=_Units(language))
    each = [scorer.score_multi(list(true), text) for text, true in zip(predicted, references, strict=True)]
    return _means({kind: [one[kind].fmeasure for one in each] for kind in kinds})


class _Units:
    """Cuts texts for rouge-score."""

    def __init__(self, language: str):
        self._language = language

    def tokenize(self, text: str) -> list[str]:
        return units(text, self._language)


def _wer(references: Sequence[Sequence[str]], predicted: Sequence[str], language: str) -> Scores:
    """Edits of words over words of the nearest references (jiwer), over all texts; 1 and more is possible."""
    if language in WITHOUT_SPACES:
        raise UserError(f"wer counts words, which {language} does not part by spaces", "Take cer.")
    return _rate("wer", load("jiwer", "jiwer").process_words, references, predicted)


def _cer(references: Sequence[Sequence[str]], predicted: Sequence[str], language: str) -> Scores:
    """The same of characters. Spaces between those of Chinese and Japanese do not count."""
    bare = "".join if language in WITHOUT_SPACES else " ".join
    given = [bare(text.split()) for text in predicted]
    return _rate("cer", load("jiwer", "jiwer").process_characters, [[bare(one.split()) for one in true] for true in references], given)


def _rate(name: str, process: Callable, references: Sequence[Sequence[str]], predicted: Sequence[str]) -> Scores:
    counts = []
    for text, true in zip(predicted, references, strict=True):
        found = [process([one], [text]) for one in true]
        each = [(one.substitutions + one.deletions + one.insertions, one.hits + one.substitutions + one.deletions) for one in found]
        counts.append(min(each, key=lambda one: one[0] / max(one[1], 1)))
    measure = Additive(np.array(counts, np.float64), lambda sums: np.where(sums[:, 1] > 0, sums[:, 0] / np.maximum(sums[:, 1], 1), np.nan))
    return Scores({name: float(measure.of(measure.parts_NP.sum(0)[None])[0])}, {}, {name: measure})


def _exact(references: Sequence[Sequence[str]], predicted: Sequence[str], language: str) -> Scores:
    """The share of texts that are one of their references, but for white space at both ends and the length of that within."""
    pairs = [(_trimmed(text), [_trimmed(one) for one in true]) for text, true in zip(predicted, references, strict=True)]
    return _means({"exact": [float(text in true) for text, true in pairs]})


def _contains(references: Sequence[Sequence[str]], predicted: Sequence[str], language: str) -> Scores:
    """The share of texts that hold one of their references."""
    pairs = [(_trimmed(text), [_trimmed(one) for one in true]) for text, true in zip(predicted, references, strict=True)]
    return _means({"contains": [float(any(one in text for one in true)) for text, true in pairs]})


def _trimmed(text: str) -> str:
    return " ".join(text.split())


def _means(each: dict[str, list[float]]) -> Scores:
    return Scores({name: float(np.mean(one)) for name, one in each.items()}, {}, {name: mean_of(one) for name, one in each.items()})


_MEASURES = {"bleu": _bleu, "chrf": _chrf, "rouge": _rouge, "wer": _wer, "cer": _cer, "exact": _exact, "contains": _contains}
