"""Texts whose class is told by one letter, and a tiny experiment on them."""

import json

import numpy as np

from data.tokenizer import character_tokenizer
from model.text_encoder_config import TextEncoderConfig
from train.experiment import AdamW, Checkpoints, Evaluation, Experiment, MeshShape, Samples, Schedule
from train.objectives.tasks.options import Supervised
from train.tasks.classification import Classification


def letters_experiment(folder, count: int = 300, wrong=frozenset(), steps: int = 80) -> Experiment:
    """An encoder of characters that tells texts by one letter among others: x or y. wrong: numbers of rows with the other label."""
    rng = np.random.default_rng(0)
    rows = []
    for number in range(count):
        letters = list(rng.choice(list("abcdefgh"), 8))
        letters[rng.integers(8)] = "xy"[number % 2]
        rows.append({"text": "".join(letters), "label": "xy"[(number + (number in wrong)) % 2]})
    (folder / "train.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    character_tokenizer("abcdefghxy").save(str(folder / "tokenizer"))
    shape = {"context_length": 16, "num_layers": 1, "embed_dim": 32, "num_heads": 2, "init_std": 0.2, "prediction_head": False}
    return Experiment(
        steps=steps,
        batch_size=32,
        model=TextEncoderConfig(**shape),
        data=Classification(files=(str(folder / "train.jsonl"),), tokenizer=str(folder / "tokenizer"), length=16, validation=0.2),
        objective=Supervised(head_dropout=0.0),
        optimizer=AdamW(learning_rate=1e-2, weight_decay=0.0),
        schedule=Schedule(5, "constant"),
        mesh=MeshShape(data=1),
        evaluation=Evaluation(every=0),
        checkpoints=Checkpoints(every=0),
        samples=Samples(tokens=0),
    )
