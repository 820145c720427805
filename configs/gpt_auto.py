"""A GPT that is pretrained by L = L_auto + L_pretraining: it reconstructs corrupted texts beside predicting next tokens.

omnia prepare text --input FILES --output DIR --tokenizer TOKENIZER
omnia train configs/gpt_auto.py:tiny --run-dir runs/gpt_auto --data.shards DIR
    tiny     for a CPU
    alone    L_pretraining alone, to compare with: the loss that evaluations report is the same
    small    GPT-2's 124 million parameters; not run yet

The reconstruction reads each row once more, in two rows that hold its halves and what is left of them, so a step computes about three times
as much as without it.
"""

import dataclasses

from model.config import ModelConfig
from model.presets import MODERN, preset
from train.experiment import AdamW, CausalLM, Evaluation, Experiment, Schedule
from train.objectives.text.options import AutoEncoding, Sum


def get_config(arg: str = "tiny") -> Experiment:
    variants = {"tiny": tiny, "alone": alone, "small": small}
    if arg not in variants:
        raise ValueError(f"no variant {arg!r}; there are {', '.join(variants)}")
    return variants[arg]()


def tiny() -> Experiment:
    return Experiment(
        name="gpt_auto_tiny",
        steps=1000,
        batch_size=16,
        model=ModelConfig(context_length=128, num_layers=2, embed_dim=128, num_heads=4, **MODERN),
        objective=Sum(objectives=(CausalLM(), AutoEncoding(shuffling="windows")), coefficients=(1.0, 1.0)),
        optimizer=AdamW(learning_rate=2e-3),
        schedule=Schedule(warmup_steps=100),
        evaluation=Evaluation(every=250, rows=256),
    )


def alone() -> Experiment:
    return dataclasses.replace(tiny(), name="gpt_alone_tiny", objective=CausalLM())


def small() -> Experiment:
    return dataclasses.replace(
        tiny(),
        name="gpt_auto_small",
        steps=20_000,
        batch_size=480,
        micro_batches=48,
        model=dataclasses.replace(preset("gpt2"), vocab_size=50_304),
        optimizer=AdamW(learning_rate=6e-4),
        schedule=Schedule(warmup_steps=700),
        evaluation=Evaluation(every=500, rows=2048),
    )
