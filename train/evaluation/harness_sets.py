"""Public data sets as lm-eval's tasks read them: from a folder of the user's, without a network. The tasks are configs/harness/*.yaml."""

import gzip
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from data.errors import UserError
from data.files.text_files import decode_text, split_lines
from train.sources.records import read_records

FOLDER = "OMNIA_DATA"
"""The environment variable that names the folder."""
TREC = {"ABBR": "abbreviation", "DESC": "description", "ENTY": "thing", "HUM": "person", "LOC": "place", "NUM": "number"}
"""What the coarse classes of the TREC questions (Li and Roth 2002) are called in a prompt."""
FOLDS = 10
"""Of a set without a split every tenth example is for tests, as is usual for the sentences of Pang and Lee (2005)."""
LAST_TRAINING_ARTICLE = 29
"""XQuAD has no training part: the articles up to this one give examples for prompts."""


def openbookqa(**_: Any):
    """Questions with four answers (Mihaylov et al. 2018), as instructions that list them. Fields: question, choices, label."""

    def example(record) -> dict[str, Any]:
        question, listed = record["instruction"].split("\n\n")[:2]
        choices = [choice.strip() for choice in re.split(r"Answer\d: ", listed)[1:]]
        return {"question": question.partition(": ")[2].strip(), "choices": choices, "label": int(record["answer"][-1]) - 1}

    return _datasets({split: [example(one) for one in _records(f"openbookqa/{split}.json")] for split in ("train", "test")})


def rte(**_: Any):
    """Whether a sentence follows from another (Dagan et al. 2006). Fields: premise, hypothesis, label (1: it does)."""
    parts = {"train": ("rte/rte1_dev.jsonl", "rte/rte2_dev.jsonl"), "test": ("rte/rte1_test.jsonl", "rte/rte2_test.jsonl")}
    fields = ("premise", "hypothesis", "label")
    return _datasets(
        {split: [{name: one[name] for name in fields} for path in paths for one in _records(path)] for split, paths in parts.items()}
    )


def mr_polarity(**_: Any):
    """Sentences of film reviews (Pang and Lee 2005), blame and praise in turn. Fields: text, label (1: praise)."""
    both = zip(*(_lines(f"mr_polarity/rt-polarity.{name}") for name in ("neg", "pos")), strict=True)
    every = [
        (number % FOLDS == FOLDS - 1, {"text": line.strip(), "label": label})
        for number, lines in enumerate(both)
        for label, line in enumerate(lines)
    ]
    return _datasets({split: [one for held_out, one in every if held_out == (split == "test")] for split in ("train", "test")})


def trec(**_: Any):
    """Questions and the kind of their answer (Li and Roth 2002). Fields: question, label (a place in TREC)."""

    def example(line: str) -> dict[str, Any]:
        kind, _, question = line.partition(" ")
        return {"question": question.strip(), "label": list(TREC).index(kind.partition(":")[0])}

    return _datasets({split: [example(line) for line in _lines(f"trec_qc/{split}.txt")] for split in ("train", "test")})


def xquad_en(**_: Any):
    """Questions whose answer is a piece of a paragraph (Artetxe et al. 2020). Fields: context, question, answers."""
    (whole,) = _records("xquad/xquad.en.articles_00-37.json")
    found: dict[str, list] = {"train": [], "test": []}
    for number, article in enumerate(whole["data"]):
        found["train" if number <= LAST_TRAINING_ARTICLE else "test"] += [
            {"context": paragraph["context"], "question": asked["question"], "answers": [answer["text"] for answer in asked["answers"]]}
            for paragraph in article["paragraphs"]
            for asked in paragraph["qas"]
        ]
    return _datasets(found)


def gsm8k(**_: Any):
    """Word problems with worked answers (Cobbe et al. 2021), the test part. Fields: question, answer, result (a number as text)."""
    marks = re.compile(r"<<.*?>>")  # of a calculator

    def example(record) -> dict[str, Any]:
        answer, _, result = record["answer"].partition("\n#### ")
        return {"question": record["question"], "answer": marks.sub("", answer), "result": result.replace(",", "").strip()}

    return _datasets({"test": [example(one) for one in _records("gsm8k_test/gsm8k_test.jsonl")]})


def last_number(example: dict[str, Any], texts: list[str]) -> dict[str, float]:
    """exact_match: whether the last number of what was written is the result."""
    numbers = re.findall(r"-?\d+(?:\.\d+)?", texts[0].replace(",", ""))
    return {"exact_match": float(bool(numbers) and float(numbers[-1]) == float(example["result"]))}


def dialogsum(**_: Any):
    """Everyday dialogues and their summaries (Chen et al. 2021). Fields: dialogue, summary."""
    train = [{"dialogue": one["dialogue"], "summary": one["summary"]} for one in _records("dialogsum/dev.jsonl")]
    test = [{"dialogue": one["dialogue"], "summary": one["summary1"]} for one in _records("dialogsum/test_000-399.jsonl")]
    return _datasets({"train": train, "test": test})


def bits_of_the_summary(example: dict[str, Any], results: list[tuple[float, bool]]) -> dict[str, Any]:
    """bits_per_byte: (log p, bytes), which lm-eval adds up."""
    return {"bits_per_byte": (results[0][0], len(example["summary"].encode()))}


def wikitext2(**_: Any):
    """Articles of WikiText-2 (Merity et al. 2016), tokenised as they were published. Field: text."""
    articles: list[str] = []
    for line in _lines("wikitext2/test.txt"):
        if re.fullmatch(r" = [^=].*[^=] = ?", line) or not articles:  # a title
            articles.append("")
        articles[-1] += line + "\n"
    return _datasets({"test": [{"text": article.strip()} for article in articles if article.strip()]})


def _records(path: str) -> list:
    return _found(path, lambda file: read_records(str(file)))


def _lines(path: str) -> list[str]:
    def lines(file: Path) -> list[str]:
        content = file.read_bytes()
        return split_lines(decode_text(gzip.decompress(content) if file.suffix == ".gz" else content))

    return [line for line in _found(path, lines) if line.strip()]


def _found(path: str, read: Callable[[Path], list]) -> list:
    """What `read` makes of a file of the folder, packed as `path`.gz or not."""
    folder = os.environ.get(FOLDER)
    if not folder:
        raise UserError("the task reads a public data set from a folder, and none is named", f"Give it: --public-data DIR, or {FOLDER}.")
    for file in (Path(folder, path), Path(folder, f"{path}.gz")):
        if file.is_file():
            return read(file)
    raise UserError(f"{folder}: no {path}, packed or not", "Give the folder that holds it: --public-data DIR.")


def _datasets(splits: dict[str, list[dict[str, Any]]]):
    import datasets

    return datasets.DatasetDict({split: datasets.Dataset.from_list(examples) for split, examples in splits.items()})
