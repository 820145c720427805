"""Public data sets as lm-eval's tasks read them: from a folder of the user's, without a network. The tasks are configs/harness/*.yaml."""

import gzip
import itertools
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from data.errors import UserError
from data.files.text_files import decode_text, split_lines
from train.rl.environments.sandbox import Limits, passed
from train.sources.records import read_records

FOLDER = "OMNIA_DATA"
"""The environment variable that names the folder."""
TREC = {"ABBR": "abbreviation", "DESC": "description", "ENTY": "thing", "HUM": "person", "LOC": "place", "NUM": "number"}
"""What the coarse classes of the TREC questions (Li and Roth 2002) are called in a prompt."""
FOLDS = 10
"""Of a set without a split every tenth example is for tests, as is usual for the sentences of Pang and Lee (2005)."""
LAST_TRAINING_ARTICLE = 29
"""XQuAD has no training part: the articles up to this one give examples for prompts."""
LIMITS = Limits(cpu_seconds=10, wall_seconds=30.0)
"""Of a program that was written; one of MBPP's own takes five seconds of processor time."""


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
    return _two_kinds("mr_polarity/rt-polarity.neg", "mr_polarity/rt-polarity.pos")


def subjectivity(**_: Any):
    """Sentences about films (Pang and Lee 2004), of plots and of reviews in turn. Fields: text, label (1: of a review)."""
    return _two_kinds("subjectivity/plot.tok.gt9.5000", "subjectivity/quote.tok.gt9.5000")


def trec(**_: Any):
    """Questions and the kind of their answer (Li and Roth 2002). Fields: question, label (a place in TREC)."""

    def example(line: str) -> dict[str, Any]:
        kind, _, question = line.partition(" ")
        return {"question": question.strip(), "label": list(TREC).index(kind.partition(":")[0])}

    return _datasets({split: [example(line) for line in _lines(f"trec_qc/{split}.txt")] for split in ("train", "test")})


def xquad(language: str, **_: Any):
    """Questions whose answer is a piece of a paragraph (Artetxe et al. 2020). Fields: context, question, answers."""
    (whole,) = _records(f"xquad/xquad.{language}.articles_00-37.json")
    found: dict[str, list] = {"train": [], "test": []}
    for number, article in enumerate(whole["data"]):
        found["train" if number <= LAST_TRAINING_ARTICLE else "test"] += [
            {"context": paragraph["context"], "question": asked["question"], "answers": [answer["text"] for answer in asked["answers"]]}
            for paragraph in article["paragraphs"]
            for asked in paragraph["qas"]
        ]
    return _datasets(found)


def reviews(path: str, leave_out: str = "", **_: Any):
    """Chinese reviews, kinds of goods and of opinions in turn. Fields: text, label (1: praise), category (empty where there is one alone).

    leave_out: a category. The test part is that of configs/tables/chinese.py, and the row before a test row is not used here either.
    """
    rows = [
        {"text": one["review"].lstrip("\ufeff").strip(), "label": int(one["label"]), "category": one.get("cat", "")}
        for one in _records(path)
        if one["review"].strip() and one.get("cat") != leave_out
    ]
    test = [row for number, row in enumerate(rows) if number % FOLDS == FOLDS - 1]
    tested = {row["text"] for row in test}
    train = [row for number, row in enumerate(rows) if number % FOLDS < FOLDS - 2 and row["text"] not in tested]
    return _datasets({"train": _in_turn(train, "category", "label"), "test": _in_turn(test, "category", "label")})


def labelled(folder: str, field: str, labels: list[str], **_: Any):
    """Texts of several kinds, in turn, from a folder's train.jsonl and test.jsonl. Fields: the file's, and label (the place in labels).

    field: the one that holds the kind.
    """

    def examples(split: str) -> list[dict[str, Any]]:
        records = _records(f"{folder}/{split}.jsonl")
        if strange := {one[field] for one in records} - {*labels}:
            raise UserError(f"{folder}/{split}.jsonl: {field} is {strange.pop()!r}", f"The task knows {', '.join(labels)}.")
        return _in_turn([{**one, "label": labels.index(one[field])} for one in records], "label")

    return _datasets({split: examples(split) for split in ("train", "test")})


def gsm8k(**_: Any):
    """Word problems with worked answers (Cobbe et al. 2021), the test part. Fields: question, answer, result (a number as text)."""
    marks = re.compile(r"<<.*?>>")  # of a calculator

    def example(record) -> dict[str, Any]:
        answer, _, result = record["answer"].partition("\n#### ")
        return {"question": record["question"], "answer": marks.sub("", answer), "result": result.replace(",", "").strip()}

    return _datasets({"test": [example(one) for one in _records("gsm8k_test/gsm8k_test.jsonl")]})


def mawps(**_: Any):
    """Word problems of one step or two (Koncel-Kedziorski et al. 2016). Fields: question, result (a number as text)."""

    def example(record) -> dict[str, Any]:
        result = f"{float(record['ans']):.4f}".rstrip("0").rstrip(".")
        return {"question": record["original_text"], "result": result}

    return _datasets({split: [example(one) for one in _records(f"mawps/{split}set.json")] for split in ("train", "test")})


def last_number(example: dict[str, Any], texts: list[str]) -> dict[str, float]:
    """exact_match: whether the last number of what was written is within 0.001 of the result (as in Hu et al. 2023)."""
    numbers = re.findall(r"-?\d*\.?\d+", texts[0].replace(",", ""))
    return {"exact_match": float(bool(numbers) and abs(float(numbers[-1]) - float(example["result"])) < 1e-3)}


def mbpp(**_: Any):
    """Short programs to write (Austin et al. 2021), tasks 11 to 510; examples of a prompt are tasks 1 to 10.

    Fields: text, test (the one that is shown), code, before (what stands before an answer: nothing), tests (what it has to pass).
    """

    def example(record) -> dict[str, Any]:
        tests = [record["test_setup_code"], *record["test_list"]]
        fields = {"text": record["text"], "test": record["test_list"][0], "code": record["code"], "before": "", "tests": "\n".join(tests)}
        return {name: field.replace("\r\n", "\n").strip() for name, field in fields.items()}

    records = sorted(_records("mbpp/mbpp.jsonl"), key=lambda record: record["task_id"])
    parts = {"prompt": (1, 10), "test": (11, 510)}
    return _datasets(
        {split: [example(one) for one in records if first <= one["task_id"] <= last] for split, (first, last) in parts.items()}
    )


def humaneval(**_: Any):
    """Functions to complete (Chen et al. 2021). Fields: before (the function's beginning), code, tests (what it has to pass).

    The beginning ends without its line end, because tokenizers join that with the indentation that follows.
    """

    def example(record) -> dict[str, Any]:
        call = f"\ncheck({record['entry_point']})" if "entry_point" in record else ""  # else the tests end with it
        return {"before": record["prompt"].strip(), "code": "\n" + record["canonical_solution"], "tests": record["test"] + call}

    return _datasets({"test": [example(one) for one in _records("humaneval_python/humaneval-python.jsonl")]})


def passes_tests(example: dict[str, Any], texts: list[str]) -> dict[str, float]:
    """pass_at_1: whether the program that was written passes the tests, run with the bounds of the sandbox."""
    (good,) = passed([f"{example['before']}{texts[0]}\n{example['tests']}"], LIMITS)
    return {"pass_at_1": float(good)}


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


def _two_kinds(*paths: str):
    """Sentences of two files in turn; label: the place of a sentence's file."""
    every = [
        (number % FOLDS == FOLDS - 1, {"text": line.strip(), "label": label})
        for number, lines in enumerate(zip(*map(_lines, paths), strict=True))
        for label, line in enumerate(lines)
    ]
    return _datasets({split: [one for held_out, one in every if held_out == (split == "test")] for split in ("train", "test")})


def _in_turn(examples: list[dict[str, Any]], *fields: str) -> list[dict[str, Any]]:
    """All examples, one after another of each kind by these fields: files are often sorted, and prompts and --limit take the first ones."""
    kinds: dict[tuple, list[dict[str, Any]]] = {}
    for one in examples:
        kinds.setdefault(tuple(one[field] for field in fields), []).append(one)
    return [one for row in itertools.zip_longest(*kinds.values()) for one in row if one is not None]


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
