"""Whether a key that is hidden in a text is found, at the length of training and at twice that, and what YaRN and tuning do for it.

omnia reproduce needles
"""

import dataclasses
import json
import random
import string
import sys
from pathlib import Path

from model.config import ModelConfig
from train.experiment import Checkpoints, Evaluation, Experiment, Muon, Samples, Schedule
from train.reproduce.files import SHAKESPEARE
from train.reproduce.table import Better, Metric, Row, Shared, Table, training

LENGTH, LONGER = 128, 256
GAPS = 20
"""Characters of text between two sentences with the key, at most."""


def get_config(arg: str = "short") -> Experiment:
    short = Experiment(
        name=f"needles, {arg}",
        steps=700,
        batch_size=16,
        model=ModelConfig(context_length=LENGTH, num_layers=2, embed_dim=64, num_heads=4, norm="rmsnorm", bias=False, positions="rotary"),
        optimizer=Muon(),
        schedule=Schedule(warmup_steps=20, decay="linear", final_fraction=0.0),
        evaluation=Evaluation(every=0, rows=64),
        checkpoints=Checkpoints(every=0),
        samples=Samples(tokens=0),
    )
    if arg == "short":
        return short
    yarn = {"rotary_scaling": "yarn", "rotary_factor": LONGER / LENGTH, "rotary_original_context": LENGTH} if arg == "yarn" else {}
    model = dataclasses.replace(short.model, context_length=LONGER, **yarn)
    return dataclasses.replace(short, steps=60, batch_size=8, model=model, optimizer=Muon(learning_rate=0.005, adam_learning_rate=1e-3))


def get_table() -> Table:
    def row(name: str, what: str, run: str, length: int) -> Row:
        return Row(name, what, (f"python {{table}} find {run} {{hay}} {length}",))

    return Table(
        title="Needles in a haystack, and YaRN",
        paper="Kamradt 2023 (needle in a haystack); Peng et al. 2023 (YaRN), section 4",
        claim="A rotary model finds no key beyond the length of training; YaRN with a little tuning lets it.",
        metrics=(
            Metric("accuracy", "letters of the key", "share found", lower_is_better=False),
            Metric("log_prob", "log-probability of a letter", "nats", lower_is_better=False),
        ),
        files=(SHAKESPEARE,),
        shared=(
            Shared(
                "keys",
                (
                    "python {table} write {shakespeare_txt} {run}.jsonl",
                    "omnia prepare text --input {run}.jsonl --output {run} --tokenizer byte --validation 0.05",
                ),
            ),
            Shared("hay", ("omnia prepare text --input {shakespeare_txt} --output {run} --tokenizer byte --validation 0.1",)),
            Shared("model", (training("{table}:short", "--data.shards {keys}"),)),
            Shared("stretched", (training("{table}:yarn", "--data.shards {keys} --start {model}"),)),
            Shared("longer", (training("{table}:plain", "--data.shards {keys} --start {model}"),)),
        ),
        rows=(
            row("within", f"as trained, texts of {LENGTH}", "{model}", LENGTH),
            row("beyond", f"as trained, texts of {LONGER}", "{model}", LONGER),
            row("yarn", f"60 steps of texts of {LONGER} with YaRN", "{stretched}", LONGER),
            row("tuned", f"60 steps of texts of {LONGER} without", "{longer}", LONGER),
        ),
        claims=(Better("within", "beyond"), Better("yarn", "beyond"), Better("yarn", "tuned")),
        note=f"2 layers of 64, trained for 700 steps on Shakespeare with sentences that repeat a key, up to {GAPS} characters apart.",
    )


def write(text: str, path: Path) -> None:
    """Documents of text with sentences that all hold the same key."""
    draw, place, documents = random.Random(0), 0, []
    while place < len(text):
        key = "".join(draw.choice(string.ascii_lowercase) for _ in range(6))
        parts = []
        for _ in range(draw.randint(4, 16)):
            gap = draw.randint(0, GAPS)
            parts += [f"The secret word is {key}.", text[place : place + gap]]
            place += gap + 1
        documents.append(json.dumps({"text": " ".join(parts)}) + "\n")
    path.write_text("".join(documents))


def find(run_dir: str, hay: str, length: int) -> dict[str, float]:
    """How much of the keys is found in texts of one length without any other key, over all depths."""
    from data.text.shards import Corpus
    from train.evaluation.long_context import evaluate_needle
    from train.runs.directory import open_run

    run = open_run(run_dir)
    found = evaluate_needle(run, Corpus(hay), text="The secret word is {}.", samples=16, context_length=length)
    cells = [cell for cell in found["needle"] if cell["length"] == length]
    return {name: sum(cell[name] for cell in cells) / len(cells) for name in ("accuracy", "log_prob")}


if __name__ == "__main__":
    from data.files import json_files

    task, *rest = sys.argv[1:]
    if task == "write":
        write(Path(rest[0]).read_text(), Path(rest[1]))
    else:
        print(json_files.dumps(find(rest[0], rest[1], int(rest[2]))))
