"""One space for four languages: sentences found across languages, and a measure that is learned in English and used in others.

omnia reproduce languages --data DIR
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from data.files import json_files
from model.text_encoder_config import TextEncoderConfig
from train.experiment import AdamW, Checkpoints, Evaluation, Experiment, Samples, Schedule
from train.objectives.tasks.retrieval import Retrieval
from train.reproduce.files import PublicFile, rows_of
from train.reproduce.table import Better, Metric, Row, Shared, Table, training
from train.tasks.retrieval import TextPairs

LANGUAGES = ("en", "zh", "de")
"""Of the sentences with scores; captions have French beside English and German."""
CAPTIONS = tuple(
    PublicFile(f"{part}_{language}", f"multi30k/{path}.{language}", digest)
    for part, path, language, digest in (
        ("captions", "train", "en", "460a15fbd157e34a7a9957ee388c1ca247fe47af3ef25fb50442af6c274e0fc6"),
        ("captions", "train", "de", "2c2b73fd2b548fbcde3a875e0a78d6ee94d498bfdee6bd3eae3945779e9ddf72"),
        ("captions", "train", "fr", "5925a3c18f1587b6b54b87743106e6e8ab93618edb6f65d19eac0621f853a10d"),
        ("others", "test_2016_flickr", "en", "399a4382932c1aadd3ceb9bef1008d388a64c76d4ae4e9d4728c6f4301cac182"),
        ("others", "test_2016_flickr", "fr", "cb3160d69b002bb638e66cc7612fcd56cb0af82eadc9c142dedc438afb885ef6"),
    )
)
"""Descriptions of pictures in three languages (Elliott et al. 2016), for research."""
SCORED = tuple(
    PublicFile(f"scored_{part}", f"applications/stsb_en_zh_de/{part}.jsonl", digest)
    for part, digest in (
        ("train", "c5dfc6aeaea80db71fdd415f2aef0b8667a9f19b7be539187bc52648c97f5391"),
        ("test", "2d3f74420fdd359e2cef002480230353814474599fa64d4bb7124723e4c8bb92"),
    )
)
"""Pairs of sentences with a score of how alike they are (Cer et al. 2017), in English and translated by machine: CC BY-SA 4.0."""
THINNED, REPEATED = 3, 4
"""Every third caption is learned from, and sentences with scores four times, so that half of a batch is sentences, each against others."""
PAIRS = (("en", "zh"), ("en", "de"), ("zh", "de"))
WIDTH = 256
"""Of the vectors, ours and the baseline's."""


def get_config(arg: str = "") -> Experiment:
    return Experiment(
        name="languages",
        steps=1200,
        batch_size=64,
        model=TextEncoderConfig(
            context_length=96, num_layers=2, embed_dim=WIDTH, num_heads=4, norm_position="post", norm_epsilon=1e-12, dropout=0.1
        ),
        data=TextPairs(text="text", pair="pair", length=96, validation=0.02),
        objective=Retrieval(),
        optimizer=AdamW(learning_rate=1e-3, weight_decay=0.01),
        schedule=Schedule(warmup_steps=100, decay="linear", final_fraction=0.0),
        evaluation=Evaluation(every=0),
        checkpoints=Checkpoints(every=0),
        samples=Samples(tokens=0),
    )


def get_table() -> Table:
    tested, ours = "{scored_train} {scored_test}", "{trained} {others_en} {others_fr}"
    return Table(
        title="Several languages in one space",
        paper="Artetxe and Schwenk 2019 (one space for many languages, by translations); Cer et al. 2017 (scores); Mikolov et al. 2013 (a "
        "linear map between languages)",
        claim="A small encoder that learned from translations alone finds a sentence's translation better than a linear map of counted "
        "words, also between two languages that it never saw beside one another; and how alike sentences are, learned from English "
        "scores, is known in the others.",
        metrics=(
            Metric("en_zh", "right translation first of 1,000 and more: English to Chinese", "share", lower_is_better=False),
            Metric("en_de", "English to German", "share", lower_is_better=False),
            Metric("zh_de", "Chinese to German", "share", lower_is_better=False),
            Metric("en_fr", "English to French, captions", "share", lower_is_better=False),
            Metric("r_en", "correlation with people: English", lower_is_better=False),
            Metric("r_zh", "Chinese", lower_is_better=False),
            Metric("r_de", "German", lower_is_better=False),
            Metric("r_across", "between two languages", lower_is_better=False),
        ),
        files=(*CAPTIONS, *SCORED),
        shared=(
            Shared("pairs", ("python {table} pairs {run} {captions_en} {captions_de} {captions_fr} {scored_train}",)),
            Shared("tokens", ("omnia prepare text --input {pairs}/all.txt --output {run} --tokenizer sentencepiece:8000",)),
            Shared("trained", (training("{table}", "--data.files {pairs}/pairs.jsonl --data.tokenizer {tokens}"),)),
        ),
        rows=(
            Row("counted", "TF-IDF, singular vectors, a linear map to English", (f"python {{table}} counted {tested}",)),
            Row(
                "encoder",
                "an encoder of two layers, from translations",
                (f"python {{table}} found {tested} {ours}",),
            ),
            Row(
                "taught",
                "the same, and a ridge that learned English scores",
                (f"python {{table}} taught {tested} {ours}",),
            ),
        ),
        claims=(
            Better("encoder", "counted"),
            Better("encoder", "counted", metric="English to German"),
            Better("encoder", "counted", metric="Chinese to German"),
            Better("taught", "encoder", metric="Chinese"),
        ),
        note="29,000 captions in English with German and French, of which every third is learned from, and 5,884 sentences in English "
        f"with Chinese and German, {REPEATED} times as often; 8,000 pieces of words for all four languages together. Vectors of {WIDTH} "
        "numbers. 1,200 steps of 64 pairs, each against the others of its batch. Translations are sought among all different sentences of "
        "1,177 test pairs, one in seventeen of which stands in the part that is learned from, too. The baseline learns its map from the "
        "same sentences; its correlations are cosines of TF-IDF within a language, and of mapped vectors between two. Those between "
        "languages are means over the three pairs of different ones.",
    )


# ------------------------------------------------------------------------------------------------------------------------ texts


def lines_of(path: str) -> list[str]:
    return Path(path).read_text(encoding="utf-8").splitlines()


def write_pairs(folder: str, english: str, german: str, french: str, scores: str) -> None:
    Path(folder).mkdir(parents=True, exist_ok=True)
    captions = [pair for other in (german, french) for pair in zip(lines_of(english), lines_of(other), strict=True)][::THINNED]
    rows = rows_of(scores)
    sentences = [pair for language in LANGUAGES[1:] for row in rows for pair in zip(row["en"], row[language], strict=True)]
    pairs = [pair for pair in captions + REPEATED * [*dict.fromkeys(sentences)] if all(text.strip() for text in pair)]
    json_files.write_lines(Path(folder, "pairs.jsonl"), [{"text": one, "pair": other} for one, other in pairs])
    texts = dict.fromkeys(text for pair in pairs for text in pair)
    Path(folder, "all.txt").write_text("\n".join(texts) + "\n", encoding="utf-8")


# --------------------------------------------------------------------------------------------------------------------- measures

Vectors = Callable[[list[str], str], np.ndarray]
"""Texts of a language to vectors of length one, in the space of all."""


def recall(one_ND: np.ndarray, other_ND: np.ndarray, names: list[str]) -> float:
    """The share of vectors whose own other one is nearest; others of the same name count as right."""
    nearest = (one_ND @ other_ND.T).argmax(1)
    return float(np.mean([names[place] == names[own] for own, place in enumerate(nearest)]))


def found(vectors: Vectors, rows: list[dict[str, Any]]) -> dict[str, float]:
    def across(one: str, other: str) -> float:
        """Among sentences that differ in the language that is sought in."""
        places = {text: (row, side) for row, pair in enumerate(rows) for side, text in enumerate(pair[other])}
        own = [rows[row][one][side] for row, side in places.values()]
        return recall(vectors(own, one), vectors([*places], other), [*places])

    return {f"{one}_{other}": across(one, other) for one, other in PAIRS}


def correlations(alike: Callable[[list[str], str, list[str], str], np.ndarray], rows: list[dict[str, Any]]) -> dict[str, float]:
    """alike: of two lists of texts with their languages, how alike each two are. Pearson's r with people."""
    people = [row["score"] for row in rows]

    def r(one: str, other: str) -> float:
        given = alike([row[one][0] for row in rows], one, [row[other][1] for row in rows], other)
        return float(np.corrcoef(given, people)[0, 1])

    between = [r(one, other) for one, other in PAIRS]
    return {f"r_{language}": r(language, language) for language in LANGUAGES} | {"r_across": float(np.mean(between))}


def cosines(vectors: Vectors) -> Callable[[list[str], str, list[str], str], np.ndarray]:
    return lambda one, first, other, second: (vectors(one, first) * vectors(other, second)).sum(-1)


def counted(rows: list[dict[str, Any]]) -> tuple[Vectors, Callable[[list[str], str, list[str], str], np.ndarray]]:
    """Vectors in the space of English, and how alike texts are: within a language by TF-IDF."""
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import Ridge
    from sklearn.preprocessing import normalize

    learned = {language: [text for row in rows for text in row[language]] for language in LANGUAGES}
    counts, spaces = {}, {}
    for language, texts in learned.items():
        grams = {"analyzer": "char", "ngram_range": (1, 2)} if language == "zh" else {"ngram_range": (1, 1)}
        counts[language] = TfidfVectorizer(sublinear_tf=True, **grams).fit(texts)
        spaces[language] = TruncatedSVD(WIDTH, random_state=0).fit(counts[language].transform(texts))

    def own(texts: list[str], language: str) -> np.ndarray:
        return spaces[language].transform(counts[language].transform(texts))

    maps = {
        language: Ridge(1.0).fit(own(texts, language), own(learned["en"], "en")) for language, texts in learned.items() if language != "en"
    }

    def vectors(texts: list[str], language: str) -> np.ndarray:
        made = own(texts, language)
        return normalize(maps[language].predict(made) if language in maps else made)

    def alike(one: list[str], first: str, other: list[str], second: str) -> np.ndarray:
        if first != second:
            return cosines(vectors)(one, first, other, second)
        return np.asarray(counts[first].transform(one).multiply(counts[first].transform(other)).sum(1)).ravel()

    return vectors, alike


def embedded(run: str) -> Vectors:
    from train.generation.embeddings import load_embedder

    embed = load_embedder(run)
    return lambda texts, language: embed(texts)


def taught(vectors: Vectors, rows: list[dict[str, Any]]) -> Callable[[list[str], str, list[str], str], np.ndarray]:
    """A ridge over what two vectors share and where they differ, from English scores alone."""
    from sklearn.linear_model import RidgeCV

    def features(one: list[str], first: str, other: list[str], second: str) -> np.ndarray:
        a_ND, b_ND = vectors(one, first), vectors(other, second)
        return np.concatenate([a_ND * b_ND, np.abs(a_ND - b_ND), (a_ND * b_ND).sum(-1, keepdims=True)], -1)

    sides = ([row["en"][side] for row in rows] for side in (0, 1))
    model = RidgeCV(np.logspace(-3, 3, 13)).fit(features(next(sides), "en", next(sides), "en"), [row["score"] for row in rows])
    return lambda *texts: model.predict(features(*texts))


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["pairs", *paths]:
            write_pairs(*paths)
        case [what, learned, tested, *ours]:
            scores, held = rows_of(learned), rows_of(tested)
            vectors, alike = counted(scores) if what == "counted" else (embedded(ours[0]), None)
            alike = alike or (taught(vectors, scores) if what == "taught" else cosines(vectors))
            measures = found(vectors, held) | correlations(alike, held)
            if ours:
                ones, others = map(lines_of, ours[1:])
                measures["en_fr"] = recall(vectors(ones, "en"), vectors(others, "fr"), others)
            print(json.dumps(measures))
