"""What a small language model does with texts of lawyers and programmers: values of contract fields, programs with a fault, translations.

omnia reproduce expert_writing --data DIR
"""

import json
import re
import sys
from pathlib import Path
from typing import Any

from data.files import json_files
from train.experiment import Experiment
from train.kinds import Data
from train.reproduce.counted import nearest
from train.reproduce.files import PublicFile, rows_of, spread
from train.reproduce.table import SMOLLM2, Better, Metric, Row, Shared, Table, training
from train.tasks.choice import MultipleChoice
from train.tasks.recipe import fine_tuning
from train.tasks.sequence import SequenceToSequence

FILES = tuple(
    PublicFile(name, f"applications/{path}.jsonl", digest)
    for name, path, digest in (
        ("fields_train", "cuad_clauses/fields_train", "33c9a15788a9d3e5c8c8f97b953e1281c8d814a504ee1bb1e0af5b26f1ac23b6"),
        ("fields_test", "cuad_clauses/fields_test", "df60a4c62cbba84b009987bb72bdd1dfff211015c2f224b9e13eb4888fa0cf12"),
        ("faults", "humaneval_fix/test", "4625c2791a9f7ae47c989aa488ab74e9ff62c69de7335f5e031df19f91800692"),
        ("methods_train", "codexglue_java_cs/train", "1f4f7798feba5a2dad1b20070f9234012a6ab2568b28473c2f47bd12a71f0a9c"),
        ("methods_test", "codexglue_java_cs/test", "84c5a4b358723baf2c6a3fcaea02f9aefe6dbe48ef64aaead34d9b190c41c23e"),
    )
)
"""Contracts (Hendrycks et al. 2021, CC BY 4.0), programs with a planted fault (Muennighoff et al. 2023, MIT), methods in Java and C# (Lu et
al. 2021, C-UDA)."""
LONGEST = {"fields": 500, "methods": 240}
"""Characters of a text: what is longer is cut, of methods left out."""
TESTS = {"fields": 400, "methods": 160}
"""Examples to test on, at most, because generation is slow on a CPU."""
TASKS: dict[str, Data] = {
    "fields": SequenceToSequence(length=192, written=24, prompt="{field}: {source}\nValue:", measures=("exact",)),
    "methods": SequenceToSequence(length=224, written=96, prompt="Java: {source}\nC#:", measures=("exact", "bleu")),
    "faults": MultipleChoice(length=512),
}
MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_MONTH = rf"(?:{'|'.join(MONTHS)})[a-z]*"
DATE = re.compile(
    rf"(?P<month>{_MONTH})\.?\s+(?P<day>\d{{1,2}})(?:st|nd|rd|th)?\s*,?\s+(?P<year>\d{{4}})"
    rf"|(?P<before>\d{{1,2}})(?:st|nd|rd|th)?(?:\s+day)?(?:\s+of)?\s+(?P<then>{_MONTH})\s*,?\s*(?P<late>\d{{4}})"
    r"|(?P<m>\d{1,2})[/-](?P<d>\d{1,2})[/-](?P<y>\d{4})",
    re.IGNORECASE,
)
ASKED = {"Agreement Date": "date", "Effective Date": "date", "Governing Law": "law", "Expiration Date": "expiry"}
"""Fields with a column of their own."""
LAW = re.compile(
    r"(?i:laws?|courts?)[^.]{0,60}?\b(?i:of)(?: (?i:the))?(?: (?i:state|commonwealth|province))?(?: (?i:of))? ([A-Z]\w+(?: [A-Z]\w+)?)"
)


def get_config(arg: str = "fields") -> Experiment:
    return fine_tuning(arg, TASKS[arg], steps=120, batch_size=16, rate=1e-3, weight_decay=0.0, dropout=0.0)


def get_table() -> Table:
    def written(name: str, what: str) -> Row:
        files = f"--data.files {{examples}}/{name}_train.jsonl --data.validation-files {{examples}}/{name}_test.jsonl"
        train = training(f"{{table}}:{name}", f"--start {{smollm2}} --adapters lora {files} --evaluation.every 0")
        apply = f"omnia apply {{run}} --input {{examples}}/{name}_test.jsonl --output {{run}}/answers.jsonl"
        return Row(
            f"model_{name}", f"{what}: SmolLM2 with LoRA", (train, apply, f"python {{table}} {name} {{examples}} {{run}}/answers.jsonl")
        )

    asked = "omnia evaluate {smollm2} --task {table}:faults --files {examples}/faults.jsonl --json"
    return Table(
        title="Fields of contracts, and programs",
        paper="Hendrycks et al. 2021 (CUAD); Muennighoff et al. 2023 (HumanEvalFix); Lu et al. 2021, table 3 (Java to C#: PBSMT .13 exact)",
        claim="A language model of 135 million parameters does with a few thousand examples what rules and nearest neighbours do not.",
        metrics=(
            Metric("score", "exactly right", "share", lower_is_better=False),
            Metric("date", "dates of agreement and effect", "share", lower_is_better=False),
            Metric("law", "governing law", "share", lower_is_better=False),
            Metric("expiry", "date of expiry", "share", lower_is_better=False),
            Metric("bleu", "BLEU", digits=1, lower_is_better=False),
        ),
        files=FILES,
        shared=(
            SMOLLM2,
            Shared("examples", ("python {table} examples {run} " + " ".join(f"{{{file.name}}}" for file in FILES),)),
        ),
        rows=(
            Row(
                "rules_fields",
                "values of contract fields: patterns of dates and laws, else the text itself",
                ("python {table} rules {examples}",),
            ),
            written("fields", "values of contract fields"),
            Row("copied_methods", "Java to C#: copied", ("python {table} copied {examples}",)),
            Row("nearest_methods", "Java to C#: the C# of the nearest method", ("python {table} nearest {examples}",)),
            written("methods", "Java to C#"),
            Row("longer_faults", "a program or the same with a fault: the longer is right", ("python {table} longer {examples}",)),
            Row(
                "model_faults", "a program or the same with a fault: SmolLM2 as published, the likelier is right", (asked,), read="accuracy"
            ),
        ),
        claims=(
            Better("model_fields", "rules_fields"),
            Better("model_methods", "nearest_methods"),
            Better("model_faults", "longer_faults"),
            Better("model_faults", 0.6),
        ),
        note=f"Fields: nine of 510 contracts, whole contracts apart; read are the first {LONGEST['fields']} characters of the clauses that "
        "hold the value, written its normal form. Dates are those of the agreement and of its effect. Methods of at most "
        f"{LONGEST['methods']} characters, {TESTS['methods']} to test on; BLEU by sacrebleu, 13a. 120 steps of 16 with LoRA, rank 8. "
        "Faults: 143 problems in Python, Java and JavaScript, each program after its beginning and the description of what it should do, "
        "by the likelihood of all of it; nothing is learned, so seeds are alike.",
    )


def write_examples(folder: str, *paths: str) -> None:
    parts = {file.name: rows_of(path) for file, path in zip(FILES, paths, strict=True)}
    Path(folder).mkdir(parents=True, exist_ok=True)
    for part in ("train", "test"):
        fields = [
            {"field": row["field"], "source": row["text"][: LONGEST["fields"]], "target": row["answer"]}
            for row in parts[f"fields_{part}"]
            if row["text"].strip() and row["answer"].strip()
        ]
        methods = [
            {"source": row["java"], "target": row["cs"]}
            for row in parts[f"methods_{part}"]
            if max(map(len, (row["java"], row["cs"]))) <= LONGEST["methods"]
        ]
        for name, rows in (("fields", fields), ("methods", methods)):
            kept = spread(rows, TESTS[name]) if part == "test" else rows
            json_files.write_lines(Path(folder, f"{name}_{part}.jsonl"), kept)
    faults = []
    for number, row in enumerate(parts["faults"]):
        for place, language in enumerate(("python", "java", "js")):
            right = (number + place) % 2
            sources = [row[language]["buggy"], row[language]["correct"]]
            choices = sources if right else sources[::-1]
            asked = f"{row['docstring']}\n\n{row[language]['declaration']}"
            faults.append({"question": asked, "choices": choices, "label": right})
    json_files.write_lines(Path(folder, "faults.jsonl"), faults)


def by_rules(row: dict[str, Any]) -> str:
    """The last date in numbers, the state or country of a law; of others the text."""
    text = row["source"]
    if "Date" in row["field"] and (dates := [*DATE.finditer(text)]):
        parts = dates[-1].groupdict()
        month = parts["m"] or MONTHS.index((parts["month"] or parts["then"]).lower()[:3]) + 1
        return f"{int(month)}/{int(parts['day'] or parts['before'] or parts['d'])}/{parts['year'] or parts['late'] or parts['y']}"
    if row["field"] == "Governing Law" and (law := LAW.search(text)):
        return law[1].title()
    return text.strip()


def scored(rows: list[dict[str, Any]], answers: list[str]) -> dict[str, float]:
    """Of methods: exactly right, and BLEU. Of fields: exactly right, of all and of some kinds."""
    from train.tasks.metrics.texts import text_scores

    found = text_scores([(row["target"],) for row in rows], answers, ("exact", "bleu")).values
    if "field" not in rows[0]:
        return {"score": found["exact"], "bleu": found["bleu"]}
    right: dict[str, list[bool]] = {}
    for row, answer in zip(rows, answers, strict=True):
        right.setdefault(ASKED.get(row["field"], ""), []).append(answer.strip() == row["target"].strip())
    return {"score": found["exact"]} | {name: sum(own) / len(own) for name, own in right.items() if name}


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["examples", *rest]:
            write_examples(*rest)
        case ["longer", folder]:
            lengths = [([len(choice) for choice in row["choices"]], row["label"]) for row in rows_of(f"{folder}/faults.jsonl")]
            right = sum((two[label] > two[1 - label]) + (two[0] == two[1]) / 2 for two, label in lengths)
            print(json.dumps({"score": right / len(lengths)}))
        case [what, folder, *answered]:
            name = "fields" if what in ("fields", "rules") else "methods"
            tested = rows_of(f"{folder}/{name}_test.jsonl")
            match what:
                case "rules":
                    answers = [by_rules(row) for row in tested]
                case "copied":
                    answers = [row["source"] for row in tested]
                case "nearest":
                    learned = rows_of(f"{folder}/methods_train.jsonl")
                    sources = ([row["source"] for row in rows] for rows in (learned, tested))
                    answers = [learned[place]["target"] for place in nearest(*sources, analyzer="char", ngram_range=(2, 4))]
                case _:
                    answers = [line["answer"] for line in rows_of(answered[0])]
            print(json.dumps(scored(tested, answers)))
