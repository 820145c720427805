"""Secrets that a language model learns by heart, and what a promise of privacy does against it.

omnia reproduce exposure --data DIR
"""

import json
import sys
from pathlib import Path
from typing import Any

from model.config import ModelConfig
from train.experiment import AdamW, CausalLM, Checkpoints, Evaluation, Exact, Experiment, MeshShape, Samples, Schedule, TextData
from train.reproduce.labelled import POLARITY
from train.reproduce.table import Better, Metric, Row, Shared, Table, training
from train.step.private.options import Private

FORM, SECRETS, REPEATS = "the secret number is ####", 10, 8
EPSILONS = (100.0, 8.0)
EVERY = 10
"""One sentence in so many is read."""


def get_config(arg: str = "private") -> Experiment:
    return Experiment(
        name=f"exposure, {arg}",
        steps=400,
        batch_size=224 if arg == "private" else 128,
        model=ModelConfig(context_length=128, num_layers=2, embed_dim=64, num_heads=2, positions="rotary", norm="rmsnorm", bias=False),
        data=TextData(),
        objective=CausalLM(),
        optimizer=AdamW(learning_rate=3e-3, weight_decay=0.0),
        schedule=Schedule(warmup_steps=20, decay="linear", final_fraction=0.0),
        gradient=Private(delta=1e-4, micro_batch=8, expected_batch=128) if arg == "private" else Exact(),
        evaluation=Evaluation(every=0),
        checkpoints=Checkpoints(every=0),
        samples=Samples(tokens=0),
        mesh=MeshShape(cpu_devices=1),
    )


def get_table() -> Table:
    def row(name: str, what: str, variant: str, *options: str) -> Row:
        measured = "python {table} measure {run} {planted}.txt"
        return Row(name, what, (training(f"{{table}}:{variant}", "--data.shards {corpus} {learned}", *options), measured))

    plant = f"omnia privacy plant --output {{run}} --secrets {{run}}.txt --form '{FORM}' --count {SECRETS} --repeats {REPEATS}"
    prepare = "omnia prepare text --output {run} --tokenizer byte"
    return Table(
        title="Secrets that a model gives away",
        paper="Carlini et al. 2019 (The Secret Sharer), tables 2 and 3",
        claim="A model learns by heart what stands a few times in its texts; trained with differential privacy it does not.",
        metrics=(
            Metric("exposure", "exposure", "bits"),
            Metric("loss", "loss", "nats"),
        ),
        files=POLARITY,
        shared=(
            Shared("sentences", ("python {table} sentences {run} {positive} {negative}",)),
            Shared("planted", (plant,)),
            Shared("corpus", (f"{prepare} --input {{sentences}} --validation 0.05",)),
            Shared("learned", (f"{prepare} --input {{planted}} --validation 0",)),
        ),
        rows=(
            row("plain", "no promise", "plain"),
            *(row(f"epsilon_{one:g}", f"epsilon {one:g}", "private", f"--gradient.epsilon {one:g}") for one in EPSILONS),
        ),
        claims=tuple(Better(f"epsilon_{one:g}", "plain", by=2.0) for one in EPSILONS),
        note=f"{SECRETS} secrets of four digits, each in {REPEATS} documents among about 1,000 sentences of film reviews, which a decoder "
        "of two layers of 64 reads as bytes for 400 steps of 128 (privately: of 128 drawn on average). The promise is for one document, "
        f"delta 1e-4: for what stands in {REPEATS} of them there is none to speak of, so this is what the noise does, and not what it "
        "proves. Exposure is 13.3 bits for the likeliest of 10,000, and 1.4 on average for a secret that nobody saw. The loss is that of "
        "other sentences.",
    )


def write_sentences(folder: str, *files: str) -> None:
    Path(folder).mkdir(parents=True)
    lines = [line.strip() for path in files for line in Path(path).read_text("latin-1").splitlines()]
    with open(f"{folder}/sentences.jsonl", "w", encoding="utf-8") as file:
        file.writelines(json.dumps({"text": line}) + "\n" for line in lines[::EVERY])


def measure(folder: str, secrets: str) -> dict[str, Any]:
    from train.evaluation.checkpoint import evaluate_run
    from train.privacy.exposure import exposure_of
    from train.runs.directory import open_run

    run = open_run(folder)
    return {"exposure": exposure_of(run, FORM, Path(secrets).read_text().splitlines())["mean"], "loss": evaluate_run(run)["loss"]}


if __name__ == "__main__":
    what, *rest = sys.argv[1:]
    if what == "sentences":
        write_sentences(*rest)
    else:
        print(json.dumps(measure(*rest)))
