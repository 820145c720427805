"""Character-level Shakespeare: nanoGPT's two settings, and our own best on a CPU.

omnia prepare text --input input.txt --output shakespeare --tokenizer char --validation 0.1
omnia train configs/shakespeare.py:best --run-dir runs/shakespeare --data.shards shakespeare
2 CPU cores; validation over the last tenth of the text, nats per character:
    best          2.4 min with other work on the machine; 1.558 (three seeds: 1.563 1.552 1.559)
    fast          0.5 min, 1.852 (two seeds: 1.854 1.850)
    nanogpt_cpu   4.0 min with one core busy, 1.891 (seed 0; nanoGPT states 1.88)
    nanogpt_gpu   for one GPU; not run yet (nanoGPT states 1.4697; it also has dropout inside attention, which this model lacks)
"""

import dataclasses

from model.config import ModelConfig
from model.presets import MODERN
from train.experiment import AdamW, Evaluation, Experiment, Muon, Samples, Schedule

PLAIN = {"vocab_size": 65, "bias": False}


def get_config(arg: str = "best") -> Experiment:
    variants = {"best": best, "fast": fast, "nanogpt_cpu": nanogpt_cpu, "nanogpt_gpu": nanogpt_gpu}
    if arg not in variants:
        raise ValueError(f"no variant {arg!r}; there are {', '.join(variants)}")
    return variants[arg]()


def nanogpt_cpu() -> Experiment:
    return Experiment(
        name="shakespeare_nanogpt_cpu",
        steps=2000,
        batch_size=12,
        model=ModelConfig(context_length=64, num_layers=4, embed_dim=128, num_heads=4, **PLAIN),
        optimizer=AdamW(learning_rate=1e-3, beta2=0.99),
        schedule=Schedule(warmup_steps=100),
        evaluation=Evaluation(every=500),
        samples=Samples(prompts=("ROMEO:",), tokens=200),
    )


def nanogpt_gpu() -> Experiment:
    return Experiment(
        name="shakespeare_nanogpt_gpu",
        steps=5000,
        batch_size=64,
        model=ModelConfig(context_length=256, num_layers=6, embed_dim=384, num_heads=6, dropout=0.2, **PLAIN),
        optimizer=AdamW(learning_rate=1e-3, beta2=0.99),
        schedule=Schedule(warmup_steps=100),
        samples=Samples(prompts=("ROMEO:",), tokens=400),
    )


def fast() -> Experiment:
    """`best`, cut to the steps that reach the loss of nanoGPT's CPU setting."""
    return dataclasses.replace(best(), name="shakespeare_fast", steps=360, batch_size=12, evaluation=Evaluation(every=0))


def best() -> Experiment:
    return Experiment(
        name="shakespeare_best",
        steps=1200,
        batch_size=24,
        model=ModelConfig(vocab_size=65, context_length=64, num_layers=4, embed_dim=128, num_heads=4, **MODERN),
        optimizer=Muon(),
        schedule=Schedule(warmup_steps=20, decay="linear", final_fraction=0.0),
        evaluation=Evaluation(every=200),
        samples=Samples(prompts=("ROMEO:",), tokens=200),
    )
