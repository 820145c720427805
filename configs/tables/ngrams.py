"""Embeddings of hashed n-grams added to those of tokens, against the same model without them and against one with a layer more.

omnia reproduce ngrams
"""

import dataclasses

from model.config import ModelConfig
from model.presets import MODERN
from train.experiment import Checkpoints, Evaluation, Experiment, Muon, Samples, Schedule
from train.reproduce.files import SHAKESPEARE
from train.reproduce.table import CHARACTERS, NEEDS_GPU, ON_GPU, Better, Metric, Row, Table, training

PLAIN = ModelConfig(context_length=64, num_layers=2, embed_dim=64, num_heads=4, **MODERN)
MODELS = {
    "plain": (PLAIN, "characters only"),
    "bigrams": (dataclasses.replace(PLAIN, ngrams=2, ngram_rows=8192), "characters and bigrams"),
    "trigrams": (dataclasses.replace(PLAIN, ngrams=3, ngram_rows=8192), "characters, bigrams and trigrams"),
    "deeper": (dataclasses.replace(PLAIN, num_layers=3), "characters only, one more layer: 50 % more FLOPs in the layers"),
}


def get_config(arg: str = "trigrams") -> Experiment:
    return Experiment(
        name=f"ngrams, {arg}",
        steps=400,
        batch_size=24,
        model=MODELS[arg][0],
        optimizer=Muon(adam_learning_rate=8e-3),
        schedule=Schedule(warmup_steps=20, decay="linear", final_fraction=0.0),
        evaluation=Evaluation(every=0),
        checkpoints=Checkpoints(every=0),
        samples=Samples(tokens=0),
    )


def get_table() -> Table:
    def train(name: str, *options: str) -> str:
        return training(f"{{table}}:{name}", "--data.shards {shakespeare}", *options)

    return Table(
        title="Vectors of n-grams",
        paper="Roy et al. 2022 (N-Grammer), table 1; Huang et al. 2025 (Over-Tokenized Transformer)",
        claim="Vectors of hashed n-grams beside those of tokens lower the loss for hardly more FLOPs.",
        metrics=(Metric("validation/loss", "validation loss", "nats per character"),),
        files=(SHAKESPEARE,),
        shared=(CHARACTERS,),
        rows=(
            *(Row(name, what, (train(name),)) for name, (_, what) in MODELS.items()),
            *(
                Row(f"{name}_gpu", what, (train(name, ON_GPU),), tier="gpu", needs=NEEDS_GPU)
                for name, (_, what) in MODELS.items()
                if name != "deeper"
            ),
        ),
        claims=(
            Better("bigrams", "plain"),
            Better("trigrams", "bigrams"),
            Better("trigrams", "deeper"),
            Better("trigrams_gpu", "plain_gpu"),
        ),
        note="2 layers of 64, 400 steps of 24 x 64 characters. With 2,048 word pieces, trigrams are worth 0.17 nats ([log.md](log.md)).",
    )
