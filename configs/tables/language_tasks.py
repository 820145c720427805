"""A published language model before and after LoRA on a few hundred examples: summaries of dialogues, and programs.

omnia reproduce language_tasks --data DIR --seeds 1
"""

import sys
from pathlib import Path

from train.experiment import Experiment
from train.reproduce.files import DIALOGUES, PublicFile, rows_of
from train.reproduce.table import SMOLLM2, Better, Metric, Row, Shared, Table, training
from train.tasks.code import Programs
from train.tasks.recipe import fine_tuning
from train.tasks.sequence import Conversations

PROGRAMS = PublicFile("programs", "mbpp/mbpp.jsonl", "ccf64ceae9c5403bf50a044cb6d505bfd2a2963ee58338ba268fd65beab92a9f")
"""MBPP (Austin et al. 2021), CC BY 4.0; tasks 11 to 510 are for tests, 601 to 974 to learn from."""
TASKS = {
    "summary": Conversations(length=512, written=64, measures=("rouge",)),
    "code": Programs(length=384, written=128),
}
ASKED = "Summarize this conversation in one or two sentences.\n\n"
STEPS = {"summary": 48, "code": 80}
EXAMPLES = {"summary": 48, "code": 64}
"""To test on, because generation is slow on a CPU."""


def get_config(arg: str = "summary") -> Experiment:
    return fine_tuning(arg, TASKS[arg], steps=STEPS[arg], batch_size=8, rate=2e-4, weight_decay=0.0, dropout=0.0)


def get_table() -> Table:
    def rows(task: str, what: str, read: str) -> tuple[Row, Row]:
        learned, tested = (f"{{examples}}/{task}_{part}.jsonl" for part in ("train", "test"))
        before = f"omnia evaluate {{smollm2}} --task {{table}}:{task} --files {tested} --json"
        files = f"--start {{smollm2}} --adapters lora --data.files {learned} --data.validation-files {tested}"
        after = training(f"{{table}}:{task}", files)
        return (
            Row(f"{task}_before", f"{what}: as published", (before,), read=read),
            Row(f"{task}_after", f"{what}: after LoRA, rank 8", (after,), read=f"validation/{read}"),
        )

    return Table(
        title="A language model's summaries and programs before and after LoRA",
        paper="Hu et al. 2021 (LoRA), table 4",
        claim="A few hundred examples teach a small language model a task by LoRA.",
        metrics=(Metric("score", "ROUGE-1, or pass@1", "share", lower_is_better=False),),
        files=(*DIALOGUES, PROGRAMS),
        shared=(
            SMOLLM2,
            Shared("examples", ("python {table} {run} {dialogues} {other_dialogues} {programs}",)),
        ),
        rows=(*rows("summary", "summaries of dialogues", "rouge1"), *rows("code", "programs", "pass@1")),
        claims=(Better("summary_after", "summary_before"), Better("code_after", "code_before")),
        note="SmolLM2-135M-Instruct, float32, batches of 8. Summaries: asked for in the chat template; 384 dialogues learned, 48 tested, "
        "each against three. Programs: the description as a docstring; 374 tasks of MBPP learned nearly twice, 64 tested, written "
        "greedily, run in the sandbox. Before, the model is asked in the same words, without examples.",
    )


def write_examples(folder: str, dialogues: str, other_dialogues: str, programs: str) -> None:
    from data.records.writing import write_records

    Path(folder).mkdir(parents=True, exist_ok=True)
    learned, tested = rows_of(dialogues), rows_of(other_dialogues)
    write_records(f"{folder}/summary_train.jsonl", [{"prompt": ASKED + row["dialogue"], "response": row["summary"]} for row in learned])
    several = [
        {"prompt": ASKED + row["dialogue"], "response": [row[f"summary{i}"] for i in (1, 2, 3)]} for row in tested[: EXAMPLES["summary"]]
    ]
    write_records(f"{folder}/summary_test.jsonl", several)
    tasks = rows_of(programs)
    write_records(f"{folder}/code_train.jsonl", [row for row in tasks if row["task_id"] > 600])
    write_records(f"{folder}/code_test.jsonl", [row for row in tasks if 10 < row["task_id"] <= 10 + EXAMPLES["code"]])


if __name__ == "__main__":
    write_examples(*sys.argv[1:])
