"""Transformer-XL (Dai et al. 2019): text read from end to end, with a memory of what came before.

omnia prepare text --input FILE --output runs/xl/shards --tokenizer char --validation 0.05
omnia train configs/transformer_xl.py:small --run-dir runs/xl/small --data.shards runs/xl/shards
omnia evaluate runs/xl/small --change evaluation_memory=256 evaluation_limit=96
2 CPU cores beside other work, 10 minutes; 2.8 MB of speeches, bits per byte of four that were held out:
    small     characters, 0.8 M parameters: 1.652 with the 128 places before a row, 1.720 with one alone
    plain     the same trained without a memory: 1.677
    enwik8    the published 12 layers for characters; for accelerators, not run
    wt103     the published 16 layers for WikiText-103; for accelerators, not run
"""

import dataclasses

from model.config import ModelConfig
from train.experiment import AdamW, Evaluation, Experiment, Muon, Samples, Schedule
from train.objectives.text.options import RecurrentLM
from train.sources.lanes import TextLanes


def get_config(arg: str = "small") -> Experiment:
    variants = {"small": small, "plain": plain, "enwik8": enwik8, "wt103": wt103}
    if arg not in variants:
        raise ValueError(f"no variant {arg!r}; there are {', '.join(variants)}")
    return variants[arg]()


def small() -> Experiment:
    return Experiment(
        name="transformer_xl_small",
        steps=1500,
        batch_size=24,
        data=TextLanes(),
        objective=RecurrentLM(memory=64, evaluation_memory=128),
        model=ModelConfig(context_length=64, num_layers=4, embed_dim=128, num_heads=4, positions="distance"),
        optimizer=Muon(),
        schedule=Schedule(warmup_steps=50, decay="linear", final_fraction=0.0),
        evaluation=Evaluation(every=500),
        samples=Samples(tokens=0),
    )


def plain() -> Experiment:
    with_memory = small()
    return dataclasses.replace(with_memory, name="transformer_xl_plain", objective=RecurrentLM(memory=1))


def enwik8() -> Experiment:
    """Section 4.1: 41 M parameters, 0.99 bits a character with the larger model's 24 layers, 1.06 with these (table 2)."""
    return Experiment(
        name="transformer_xl_enwik8",
        steps=400_000,
        batch_size=24,
        data=TextLanes(),
        objective=RecurrentLM(memory=512, evaluation_memory=2100, evaluation_limit=820),
        model=ModelConfig(context_length=512, embed_dim=512, num_heads=8, mlp_dim=2048, positions="distance", dropout=0.1),
        optimizer=AdamW(learning_rate=2.5e-4),
        schedule=Schedule(decay="cosine"),
    )


def wt103() -> Experiment:
    """The base model of section 4.1, 151 M parameters: 24.0 perplexity (table 1); the paper's adaptive softmax is left out."""
    return Experiment(
        name="transformer_xl_wt103",
        steps=200_000,
        batch_size=60,
        data=TextLanes(),
        objective=RecurrentLM(memory=150, evaluation_memory=640, evaluation_limit=400),
        model=ModelConfig(
            context_length=150,
            num_layers=16,
            embed_dim=410,
            num_heads=10,
            mlp_dim=2100,
            positions="distance",
            distance_limit=400,
            dropout=0.1,
        ),
        optimizer=AdamW(learning_rate=2.5e-4),
        schedule=Schedule(decay="cosine"),
    )
