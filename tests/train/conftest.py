"""A tiny corpus, prepared once, and a tiny experiment over it."""

import dataclasses

import numpy as np
import pytest

from data.text.prepare import PrepareText, prepare_text
from model.config import ModelConfig
from train.experiment import AdamW, Checkpoints, Evaluation, Experiment, Logging, MeshShape, Samples, Schedule, TextData

WORDS = "the cat sat on a mat and saw red sun set by sea while old men sang low".split()


def write_texts(folder, seed: int, documents: int):
    """Files of random sentences, from a few words to a few hundred long."""
    rng = np.random.default_rng(seed)
    folder.mkdir()
    for number in range(documents):
        words = rng.choice(WORDS, int(rng.integers(3, 120)))
        (folder / f"{number:03}.txt").write_text(" ".join(words) + ".\n")
    return folder


@pytest.fixture(scope="session")
def corpora(tmp_path_factory):
    """Two prepared folders of the same (byte) tokenizer."""
    root = tmp_path_factory.mktemp("corpora")
    paths = []
    for seed, documents in ((0, 30), (1, 12)):
        texts = write_texts(root / f"texts{seed}", seed, documents)
        prepare_text(PrepareText(output=str(root / f"shards{seed}"), input=(str(texts),), validation=0.2, workers=1))
        paths.append(str(root / f"shards{seed}"))
    return tuple(paths)


@pytest.fixture
def tiny(corpora):
    """An experiment of seconds that uses what a run can use: a mixture, accumulation, dropout, an average, several devices."""
    return Experiment(
        name="tiny",
        steps=8,
        batch_size=4,
        micro_batches=2,
        ema_decay=0.9,
        model=ModelConfig(context_length=32, num_layers=1, embed_dim=16, num_heads=2, dropout=0.1),
        data=TextData(shards=corpora, weights=(2.0, 1.0)),
        optimizer=AdamW(learning_rate=1e-2),
        schedule=Schedule(warmup_steps=2),
        mesh=MeshShape(data=1),
        evaluation=Evaluation(every=4),
        checkpoints=Checkpoints(every=4, keep=9),
        samples=Samples(tokens=0),
        logging=Logging(every=1),
    )


def change(experiment: Experiment, **parts) -> Experiment:
    """The experiment with fields of its parts replaced: change(e, model={"dropout": 0.0}, steps=3)."""
    changed = {
        name: dataclasses.replace(getattr(experiment, name), **part) if isinstance(part, dict) else part for name, part in parts.items()
    }
    return dataclasses.replace(experiment, **changed)
