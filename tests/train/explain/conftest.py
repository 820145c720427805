"""Subjects that are formulas, and tiny experiments on texts whose answer is told by one letter."""

import dataclasses
import json

import jax.numpy as jnp
import numpy as np

from data.tokenizer import character_tokenizer
from model.encoder_decoder_config import EncoderDecoderConfig
from model.text_encoder_config import TextEncoderConfig
from train.experiment import AdamW, Checkpoints, Evaluation, Experiment, MeshShape, Samples, Schedule
from train.explain.subject import Subject
from train.objectives.tasks.options import Supervised
from train.tasks.classification import Classification
from train.tasks.sequence import SequenceToSequence

SHAPE = {"context_length": 16, "num_layers": 1, "embed_dim": 32, "num_heads": 2, "init_std": 0.2}


def formula(of_vectors, count: int = 5, params=()) -> Subject:
    """A text of `count` tokens, 1, 2 and so on, between two marks. Token t has the one-hot vector e_t, the baseline (0) the vector 0;
    of_vectors(x_BTW) -> [B], or of_vectors(params, x_BTW) where there are some, is the model."""
    table = np.eye(count + 2, dtype=np.float32)
    table[0] = 0
    ids_T = np.array([count + 1, *range(1, count + 1), count + 1], np.int32)

    def score(params, ids_BT, shift_BTW):
        x_BTW = jnp.asarray(table)[ids_BT]
        x_BTW = x_BTW if shift_BTW is None else x_BTW + shift_BTW
        return of_vectors(params, x_BTW) if params else of_vectors(x_BTW)

    return Subject(
        ids_T=ids_T,
        texts=[f"t{number}" for number in ids_T],
        free_T=np.pad(np.ones(count, bool), 1),
        baseline=0,
        answer="yes",
        number=0,
        against="",
        params=params,
        score=score,
        vectors=lambda params, ids: jnp.asarray(table)[ids],
    )


def letters_experiment(folder, count: int = 300, wrong=frozenset(), steps: int = 80) -> Experiment:
    """An encoder of characters that tells by one letter among others whether a text has an x, a y or none of them: with two classes one of
    both letters would do, and the other be nobody's reason. wrong: numbers of rows with another label."""
    rng = np.random.default_rng(0)
    rows = []
    for number in range(count):
        letters, place = list(rng.choice(list("abcdefgh"), 8)), rng.integers(8)
        letters[place] = ("x", "y", letters[place])[number % 3]
        rows.append({"text": "".join(letters), "label": "xyn"[(number + (number in wrong)) % 3]})
    model = TextEncoderConfig(**SHAPE, prediction_head=False)
    return _experiment(folder, rows, model, Classification(length=16, validation=0.2), steps)


def several_experiment(folder) -> Experiment:
    """The same, of texts with any of x and y, each of which is a label."""
    rng = np.random.default_rng(0)
    rows = []
    for number in range(300):
        letters = list(rng.choice(list("abcdefgh"), 8))
        labels = [name for bit, name in enumerate("xy") if number >> bit & 1]
        for place, name in zip(rng.permutation(8), labels, strict=False):
            letters[place] = name
        rows.append({"text": "".join(letters), "label": labels})
    model = TextEncoderConfig(**SHAPE, prediction_head=False)
    return _experiment(folder, rows, model, Classification(length=16, validation=0.2, several=True), 80)


def translator_experiment(folder) -> Experiment:
    """An encoder-decoder that writes which of x and y, and then which of u and v, stands in a text; n for none of them."""
    rng = np.random.default_rng(0)
    rows = []
    for number in range(450):
        letters = list(rng.choice(list("abcdefgh"), 8))
        target = "xyn"[number % 3] + "uvn"[number // 3 % 3]
        for place, letter in zip(rng.permutation(8), target, strict=False):
            letters[place] = letter if letter != "n" else letters[place]
        rows.append({"source": "".join(letters), "target": target})
    data = SequenceToSequence(length=16, written=4, validation=0.2, prompt="{source}")
    return _experiment(folder, rows, EncoderDecoderConfig(**SHAPE), data, 100)


def _experiment(folder, rows, model, data, steps: int) -> Experiment:
    (folder / "train.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    character_tokenizer("abcdefghnuvxy").save(str(folder / "tokenizer"))
    return Experiment(
        steps=steps,
        batch_size=32,
        model=model,
        data=dataclasses.replace(data, files=(str(folder / "train.jsonl"),), tokenizer=str(folder / "tokenizer")),
        objective=Supervised(head_dropout=0.0),
        optimizer=AdamW(learning_rate=1e-2, weight_decay=0.0),
        schedule=Schedule(5, "constant"),
        mesh=MeshShape(data=1),
        evaluation=Evaluation(every=0),
        checkpoints=Checkpoints(every=0),
        samples=Samples(tokens=0),
    )
