"""Easy data augmentation by the number of labelled texts.

omnia reproduce eda --data DIR
"""

from train.experiment import Experiment
from train.reproduce.labelled import ENCODER, FILES, TEXTS
from train.reproduce.table import Better, Metric, Row, Shared, Table, training
from train.tasks.changes.augmentation import Augment
from train.tasks.classification import Classification
from train.tasks.recipe import fine_tuning

SIZES = (100, 500, 2000)
WAYS = {"plain": "as they are", "eda": "with EDA (Wei and Zou 2019)"}


def get_config(arg: str = "eda") -> Experiment:
    return fine_tuning(
        f"augmentation, {arg}",
        Classification(length=64, augment=Augment(rate=0.9 if arg == "eda" else 0.0, strength=0.1)),
        steps=200,
        rate=3e-4,
    )


def get_table() -> Table:
    def train(way: str, size: int) -> str:
        files = "--start {encoder}/two --data.files {texts}/polarity_train.csv --data.validation-files {texts}/polarity_test.csv"
        table = " --data.augment.synonyms {synonyms}/words.tsv" if way == "eda" else ""
        return training(f"{{table}}:{way}", f"{files} --data.examples {size}{table}")

    return Table(
        title="Augmentation by the number of labelled texts",
        paper="Wei and Zou 2019 (EDA), table 2 and figure 1",
        claim="Changed copies of texts help where few are labelled, and hardly where many are.",
        metrics=(Metric("validation/accuracy", "accuracy", "share", lower_is_better=False),),
        files=FILES,
        shared=(
            TEXTS,
            ENCODER,
            Shared("synonyms", ("python -m train.tasks.changes.synonyms {encoder}/two {texts}/polarity_train.csv {run}/words.tsv",)),
        ),
        rows=tuple(
            Row(f"{way}_{size}", f"{size} texts, {what}", (train(way, size),), x=size, series=what)
            for way, what in WAYS.items()
            for size in SIZES
        ),
        claims=(Better("eda_100", "plain_100"), Better("eda_500", "plain_500")),
        x="labelled texts",
        note="Two layers of MiniLM, sentences of film reviews, 200 steps of 32 at every size. Synonyms are neighbours in MiniLM's "
        "embedding table, not WordNet's as in the paper, which trained from scratch.",
    )
