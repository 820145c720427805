"""Texts of several trades: spam, news, clauses of contracts, relations, opinions of investors, sections of medical notes; a small encoder
beside words counted, and with n-grams of its own tokens.

omnia reproduce expert_texts --data DIR
"""

import json
import re
import sys
from typing import Any, NamedTuple

from train.experiment import Experiment
from train.reproduce.counted import words_and_letters
from train.reproduce.files import PublicFile, rows_of
from train.reproduce.labelled import ENCODER
from train.reproduce.table import Better, Metric, Row, Table, training
from train.tasks.classification import Classification
from train.tasks.recipe import fine_tuning


class Kind(NamedTuple):
    """what: for people. path: of a set's files, with {} for the part. text, label: columns. length: tokens that are read. steps: of 32
    examples. measure: of answers, as `omnia evaluate` names it. train, test: digests. title: a column that is read before the text."""

    what: str
    path: str
    text: str
    label: str
    length: int
    steps: int
    measure: str
    train: str
    test: str
    title: str = ""

    def words(self, row: dict[str, Any]) -> str:
        return f"{row[self.title]} {row[self.text]}" if self.title else row[self.text]


KINDS = {
    "spam": Kind(
        "short messages: spam or not (Almeida et al. 2011)",
        "sms_spam/{}",
        "text",
        "label",
        64,
        250,
        "macro_f1",
        "4f857a11ab0ff8580bb325d0a7518d7da4c4f43d10cb9a399d63e586cdb54940",
        "4112917d8fe2301c643f78fad523e86f1f544be003e3c00d3952f9db83ab6593",
    ),
    "news": Kind(
        "topics of news (Zhang et al. 2015)",
        "ag_news_cut/{}",
        "text",
        "topic",
        64,
        250,
        "accuracy",
        "530e71c3bf16ec1b7676c46a0b6f1e3b1e884dea416b522e2c6fa3fcc57cb0f7",
        "ad54700b143b569037b8e3d98bf656868265de82cf944e110b9e42448cfdc0e5",
        title="title",
    ),
    "clauses": Kind(
        "clauses of contracts, several labels (Hendrycks et al. 2021)",
        "cuad_clauses/clauses_{}",
        "text",
        "categories",
        128,
        500,
        "micro_f1",
        "3147d8fc78e22a3de46ab3a3a9189651bedd30f60e9feadc955748b60c3fbb51",
        "8751a85d9c1976b8276453e47a2b6f7fb54a5b955a65241fa284e76d31920733",
    ),
    "relations": Kind(
        "relations between marked nouns, 19 classes (Hendrickx et al. 2010)",
        "semeval2010_relations/{}",
        "text",
        "relation",
        64,
        500,
        "accuracy",
        "9c924cd35d09058dfc94080550f83a6634ae0cba2961a189d4ebf248e214e128",
        "2809fc5b82150ff03268fe92100d6476a06c0b96a3576c14d94c6c6e1010abca",
    ),
    "investors": Kind(
        "financial news as investors see it (Malo et al. 2014)",
        "financial_phrasebank/{}",
        "text",
        "sentiment",
        64,
        250,
        "macro_f1",
        "b55a8d6fc60fd4b7c310f1b570e533c9762f7ec20a77846c7e0d96c4f34dbf00",
        "7143c5f47ebdabcbc3b4e1a41fb9d0eb181705883219da3f651bd0d8e89e15f8",
    ),
    "sections": Kind(
        "sections of a medical note that a conversation leads to (Ben Abacha et al. 2023)",
        "mts_dialog/{}",
        "dialogue",
        "section",
        128,
        150,
        "accuracy",
        "0e22773a2adc902fe2e8213aaf4dc568119546d7d37862dbbaa5f2d0a4154617",
        "3f5a386686ab0bda515ee2bfc2301ce0816fd0fcef5b124bba4359c32bdddcf7",
    ),
}
BOTH = ("spam", "clauses", "relations", "sections")
"""Kinds that are learned with n-grams beside the encoder, too: where it alone falls short of words counted, or of what was hoped."""


def get_config(arg: str = "spam") -> Experiment:
    kind = KINDS[arg]
    columns = {"text": kind.title, "pair": kind.text} if kind.title else {"text": kind.text}
    data = Classification(**columns, label=kind.label, length=kind.length, several=arg == "clauses", threshold=0.3)
    return fine_tuning(arg, data, steps=kind.steps, rate=3e-4)


def get_table() -> Table:
    files = tuple(
        PublicFile(f"{name}_{part}", f"applications/{kind.path.format(part)}.jsonl", getattr(kind, part))
        for name, kind in KINDS.items()
        for part in ("train", "test")
    )

    def encoder(prefix: str, name: str, what: str, *options: str) -> Row:
        files = f"--data.files {{{name}_train}} --data.validation-files {{{name}_test}}"
        command = training(f"{{table}}:{name}", f"--start {{encoder}}/two {files}", *options)
        return Row(f"{prefix}_{name}", f"{KINDS[name].what}: {what}", (command,), read=f"validation/{KINDS[name].measure}")

    return Table(
        title="Texts of several trades",
        paper="baselines as practitioners use them; Devlin et al. 2019 (an encoder, fine-tuned)",
        claim="A small encoder that read English before is better on texts of experts than words counted, and "
        "better with n-grams beside it.",
        metrics=(
            Metric("score", "accuracy, or F1", "share", lower_is_better=False),
            Metric("validation/macro_f1", "macro F1", "share", lower_is_better=False),
        ),
        files=files,
        shared=(ENCODER,),
        rows=(
            *(
                row
                for name, kind in KINDS.items()
                for row in (
                    Row(f"counted_{name}", f"{kind.what}: words counted", (f"python {{table}} {name} {{{name}_train}} {{{name}_test}}",)),
                    encoder("encoder", name, "two layers of MiniLM"),
                )
            ),
            *(encoder("both", name, "the same, with n-grams of one and two tokens", "--objective.ngrams 2") for name in BOTH),
        ),
        claims=(
            *(Better(f"encoder_{name}", f"counted_{name}") for name in KINDS),
            *(Better(f"both_{name}", f"encoder_{name}") for name in BOTH),
        ),
        note="Whole train parts; steps of 32: "
        + ", ".join(f"{kind.steps} for {name}" for name, kind in KINDS.items())
        + ". Counted: TF-IDF of words, pairs of them and two to four characters, linear support vectors; for several labels one against "
        "the rest, and at least the likeliest; for relations also of what stands from noun to noun and between them. Of news, titles are "
        "read, too. Accuracy of news, relations and sections, macro F1 of spam and of opinions, micro F1 of clauses, where encoders name "
        "labels from a probability of 0.3 on. Kinds to learn with n-grams beside the encoder were chosen by these results.",
    )


MARKED = re.compile(r"(<e1>(.*?)</e1>(.*)<e2>(.*?)</e2>)", re.DOTALL)


def of_relations() -> Any:
    """A transformer of texts with two marked nouns to what is counted of all, from noun to noun, between them, and of their letters."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.pipeline import make_pipeline, make_union
    from sklearn.preprocessing import FunctionTransformer

    def part(*groups: int) -> Any:
        return FunctionTransformer(lambda texts: [" ".join(MARKED.search(text)[group] for group in groups) for text in texts])

    return make_union(
        words_and_letters(),
        make_pipeline(part(1), words_and_letters()),
        make_pipeline(part(3), TfidfVectorizer(ngram_range=(1, 3), sublinear_tf=True, token_pattern=r"\S+")),
        make_pipeline(part(2, 4), TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True)),
    )


def counted(name: str, *paths: str) -> dict[str, Any]:
    """The measures of a baseline. paths: to learn from, and to test on."""
    from sklearn.metrics import accuracy_score, f1_score
    from sklearn.multiclass import OneVsRestClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import MultiLabelBinarizer
    from sklearn.svm import LinearSVC

    kind = KINDS[name]
    learned, tested = map(rows_of, paths)
    features = of_relations() if name == "relations" else words_and_letters()
    truth: Any = [row[kind.label] for row in learned]
    wanted: Any = [row[kind.label] for row in tested]
    given, texts = ([kind.words(row) for row in rows] for rows in (learned, tested))
    if isinstance(truth[0], list):
        names = MultiLabelBinarizer().fit(truth + wanted)
        wanted = names.transform(wanted)
        model = make_pipeline(features, OneVsRestClassifier(LinearSVC())).fit(given, names.transform(truth))
        scores = model.decision_function(texts)
        found = (scores > 0) | (scores == scores.max(1, keepdims=True))  # each clause has a label at least
    else:
        found = make_pipeline(features, LinearSVC()).fit(given, truth).predict(texts)
    f1 = {average: float(f1_score(wanted, found, average=average)) for average in ("macro", "micro")}
    score = accuracy_score(wanted, found) if kind.measure == "accuracy" else f1[kind.measure.removesuffix("_f1")]
    return {"score": float(score), "validation": {"macro_f1": f1["macro"]}}


if __name__ == "__main__":
    print(json.dumps(counted(*sys.argv[1:])))
