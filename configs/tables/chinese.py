"""Chinese sentiment and entities: an encoder from scratch, one that first read unlabelled Chinese, and what one would do without either.

omnia reproduce chinese --data DIR
"""

import csv
import json
import sys
from collections import Counter
from pathlib import Path

from model.text_encoder_config import TextEncoderConfig
from train.experiment import AdamW, Checkpoints, Evaluation, Experiment, Samples, Schedule, TextData
from train.objectives.tasks.options import Supervised
from train.objectives.text.options import MaskedLM
from train.reproduce.files import PublicFile
from train.reproduce.table import Better, Metric, Row, Shared, Table, training
from train.reproduce.tagged import counted_f1
from train.tasks.classification import Classification
from train.tasks.tagging import Tagging

HOTEL = PublicFile(
    "hotel", "zh_chnsenticorp_hotel/ChnSentiCorp_htl_all.csv", "1d414b9c65caf3a836abdb4efded621968502ad3338e1a9d885ae131c86083f0"
)
SHOPPING = PublicFile(
    "shopping", "zh_online_shopping/online_shopping_10_cats.csv", "f6c5b724122d8547b700ac4524898eb7e28abbee63f798e95a8faa408829afdb"
)
NEWS = tuple(
    PublicFile(f"news_{part}", f"zh_ner_msra/{part}.bio", digest)
    for part, digest in (
        ("train", "4f04fdf9088378c8b0e10d4b7f3203719d6f09c64c8790da47d4d9b13733c2c9"),
        ("test", "5dba550fc5bf8125a7b99d9593b69872d5362a914c2aa3a61ba0db09f0d40343"),
    )
)
FOLDS = 10
"""Of reviews, every tenth is for testing, and the one before it is not used."""
TASKS = {"hotel": "opinions of hotels", "shopping": "opinions of goods", "news": "entities in news"}
STEPS = {"hotel": 300, "shopping": 500, "news": 500}
BASELINES = {
    "hotel": "TF-IDF of one to three characters, logistic regression",
    "shopping": "TF-IDF of one to three characters, logistic regression",
    "news": "logistic regression on windows of five characters",
}
SHAPE = TextEncoderConfig(context_length=128, num_layers=4, embed_dim=192, num_heads=3, dropout=0.1, norm="rmsnorm", positions="rotary")


def get_config(arg: str = "hotel") -> Experiment:
    steps = STEPS.get(arg, 1200)
    return Experiment(
        name=f"chinese, {arg}",
        steps=steps,
        batch_size=32,
        model=SHAPE,
        data={"encoder": TextData(), "news": Tagging(length=128, leave_out=True)}.get(arg, Classification(length=128)),
        objective=MaskedLM() if arg == "encoder" else Supervised(),
        optimizer=AdamW(learning_rate=1e-3 if arg == "encoder" else 5e-4, weight_decay=0.01),
        schedule=Schedule(warmup_steps=steps // 10, decay="linear", final_fraction=0.0),
        evaluation=Evaluation(every=0),
        checkpoints=Checkpoints(every=0),
        samples=Samples(tokens=0),
    )


def get_table() -> Table:
    def command(task: str, start: str) -> str:
        learned, tested = parts(task)
        return training(f"{{table}}:{task}", start, f"--data.files {learned} --data.validation-files {tested}")

    def parts(task: str) -> tuple[str, ...]:
        return tuple(f"{{news_{part}}}" if task == "news" else f"{{texts}}/{task}_{part}.csv" for part in ("train", "test"))

    def rows(task: str) -> tuple[Row, ...]:
        what, read = TASKS[task], "validation/f1" if task == "news" else "validation/accuracy"
        return (
            Row(f"baseline_{task}", f"{what}: {BASELINES[task]}", (" ".join(("python {table}", task, *parts(task))),)),
            Row(f"scratch_{task}", f"{what}: encoder from scratch", (command(task, "--data.tokenizer {corpus}"),), read=read),
            Row(f"encoder_{task}", f"{what}: encoder that read Chinese before", (command(task, "--start {encoder}"),), read=read),
        )

    corpus = "omnia prepare text --input {texts}/corpus --output {run} --tokenizer sentencepiece:8000 --validation 0.02"
    return Table(
        title="Chinese sentiment and entities",
        paper="Devlin et al. 2019 (BERT); the tasks are of the kind of CLUE's (Xu et al. 2020)",
        claim="A small encoder that first read unlabelled Chinese is better than one from scratch, and than characters counted.",
        metrics=(Metric("score", "accuracy, or F1 of entities", "share", lower_is_better=False),),
        files=(HOTEL, SHOPPING, *NEWS),
        shared=(
            Shared("texts", ("python {table} texts {run} {hotel} {shopping} {news_train}",)),
            Shared("corpus", (corpus,)),
            Shared("encoder", ("omnia train {table}:encoder --run-dir {run} --data.shards {corpus}",)),
        ),
        rows=tuple(row for task in TASKS for row in rows(task)),
        claims=tuple(
            claim
            for task in TASKS
            for claim in (Better(f"encoder_{task}", f"scratch_{task}"), Better(f"encoder_{task}", f"baseline_{task}"))
        ),
        note="4 layers of 192, 8,000 pieces of words and characters as tokens. The encoder read reviews and news without labels, those of "
        "the test parts left out, for 1,200 steps of 32 rows of 128. Reviews of hotels are left out of those of goods, because both sets "
        "share many. The encoders learn from 300 to 500 steps of 32 examples, the baselines from all. Accuracy of opinions, strict F1 of "
        "entities.",
    )


# --------------------------------------------------------------------------------------------------------------- texts and baselines


def reviews(path: str, leave_out: str = "") -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8-sig") as file:
        rows = [row for row in csv.DictReader(file) if (row["review"] or "").strip() and row.get("cat") != leave_out]
    return [{"text": row["review"].strip(), "label": {"0": "bad", "1": "good"}[row["label"]]} for row in rows]


def write_texts(folder: Path, hotel: str, shopping: str, news: str) -> None:
    from data.records.sentences import read_sentences
    from data.records.writing import write_records

    (folder / "corpus").mkdir(parents=True)
    corpus = []
    for name, rows in (("hotel", reviews(hotel)), ("shopping", reviews(shopping, leave_out="酒店"))):
        tested = {row["text"] for number, row in enumerate(rows) if number % FOLDS == FOLDS - 1}
        write_records(f"{folder}/{name}_test.csv", [row for number, row in enumerate(rows) if number % FOLDS == FOLDS - 1])
        train = [row for number, row in enumerate(rows) if number % FOLDS < FOLDS - 2 and row["text"] not in tested]
        write_records(f"{folder}/{name}_train.csv", train)
        corpus += [row["text"] for row in train]
    corpus += ["".join(sentence.tokens) for sentence in read_sentences(news, left_out=Counter())]
    with open(folder / "corpus" / "texts.jsonl", "w", encoding="utf-8") as file:
        file.writelines(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in corpus)


def opinions(train: str, test: str) -> float:
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    rows = {}
    for part, path in (("train", train), ("test", test)):
        with open(path, newline="", encoding="utf-8") as file:
            rows[part] = list(csv.DictReader(file))
    vectors = TfidfVectorizer(analyzer="char", ngram_range=(1, 3), min_df=2, sublinear_tf=True)
    model = LogisticRegression(C=10, max_iter=1000)
    model.fit(vectors.fit_transform(row["text"] for row in rows["train"]), [row["label"] for row in rows["train"]])
    return model.score(vectors.transform(row["text"] for row in rows["test"]), [row["label"] for row in rows["test"]])


if __name__ == "__main__":
    what, *rest = sys.argv[1:]
    if what == "texts":
        write_texts(Path(rest[0]), *rest[1:])
    else:
        print(json.dumps({"score": counted_f1(*rest) if what == "news" else opinions(*rest)}))
