"""Written texts against true ones: translations, summaries, transcripts."""

from collections.abc import Sequence

from train.tasks.metrics.scores import Scores, check_pairs, load
from train.tasks.metrics.words import WITHOUT_SPACES, units

_TOKENIZERS = {"zh": "zh", "ja": "char", "ko": "char"}
"""Of sacrebleu, for languages whose words its usual one does not find."""


def translations(predicted: Sequence[str], references: Sequence[Sequence[str]], language: str = "en") -> Scores:
    """BLEU (Papineni et al. 2002) and chrF (Popović 2015) of sacrebleu (Post 2018), from 0 to 100.

    language: of the texts; Chinese is cut by sacrebleu's tokenizer zh. Table: `signatures`, which say how each was computed.
    """
    check_pairs(references, predicted)
    library = load("sacrebleu.metrics", "sacrebleu")
    most = max(map(len, references))
    columns = [[one[number] if number < len(one) else None for one in references] for number in range(most)]
    values, signatures = {}, []
    for name, metric in (("bleu", library.BLEU(tokenize=_TOKENIZERS.get(language, "13a"))), ("chrf", library.CHRF())):
        values[name] = float(metric.corpus_score(list(predicted), columns).score)
        signatures.append({"metric": name, "signature": str(metric.get_signature())})
    return Scores(values, {"signatures": signatures})


def summaries(predicted: Sequence[str], references: Sequence[Sequence[str]], language: str = "en") -> Scores:
    """F1 of ROUGE-1, ROUGE-2 and ROUGE-L (Lin 2004) of rouge-score, from 0 to 1, of the best of the references.

    English: its own words, cut by Porter's stemmer. Others: words of any alphabet; Chinese and Japanese characters.
    """
    check_pairs(references, predicted)
    library = load("rouge_score.rouge_scorer", "rouge-score")
    kinds = ("rouge1", "rouge2", "rougeL")
    scorer = library.RougeScorer(kinds, use_stemmer=True) if language == "en" else library.RougeScorer(kinds, tokenizer=_Units(language))
    scores = [scorer.score_multi(list(true), text) for text, true in zip(predicted, references, strict=True)]
    return Scores({kind: sum(score[kind].fmeasure for score in scores) / len(scores) for kind in kinds})


class _Units:
    """Cuts texts for rouge-score."""

    def __init__(self, language: str):
        self._language = language

    def tokenize(self, text: str) -> list[str]:
        return units(text, self._language)


def transcripts(predicted: Sequence[str], references: Sequence[str], language: str = "en") -> Scores:
    """Error rates of words and characters (jiwer), by the edits of all texts over the length of all true ones; 1 and more is possible.

    Texts are compared as they are. Chinese and Japanese have no rate of words; the one of characters ignores spaces there.
    """
    check_pairs(references, predicted)
    library = load("jiwer", "jiwer")
    predicted, references = list(predicted), list(references)
    if language in WITHOUT_SPACES:
        predicted, references = (["".join(text.split()) for text in texts] for texts in (predicted, references))
        return Scores({"cer": _rate(library.process_characters(references, predicted))})
    rates = {"wer": library.process_words(references, predicted), "cer": library.process_characters(references, predicted)}
    return Scores({name: _rate(found) for name, found in rates.items()})


def _rate(found) -> float:
    """Edits over units; NaN where nothing was said."""
    length = found.hits + found.substitutions + found.deletions
    return (found.substitutions + found.deletions + found.insertions) / length if length else float("nan")


def exact_match(predicted: Sequence[str], references: Sequence[Sequence[str]]) -> Scores:
    """The share of texts that are one of their references, white space at both ends and its length within aside."""
    check_pairs(references, predicted)
    same = [" ".join(text.split()) in {" ".join(one.split()) for one in true} for text, true in zip(predicted, references, strict=True)]
    return Scores({"exact_match": sum(same) / len(same)})
