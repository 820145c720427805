"""ELECTRA (Clark et al. 2020): an encoder that finds the tokens that a small generator has put in a text.

omnia prepare text --input FILES --output DIR --tokenizer TOKENIZER
omnia train configs/electra.py:tiny --run-dir runs/electra --data.shards DIR
    tiny     for a CPU
    small    14 million parameters, batches of 128 rows of 128 tokens, as in the paper; not run yet
"""

from model.text_encoder_config import TextEncoderConfig
from train.experiment import AdamW, Evaluation, Experiment, Schedule
from train.objectives.text.options import ReplacedTokens

ELECTRA = {"norm_position": "post", "norm_epsilon": 1e-12, "dropout": 0.1, "pooler": False, "prediction_head": False}


def get_config(arg: str = "tiny") -> Experiment:
    variants = {"tiny": tiny, "small": small}
    if arg not in variants:
        raise ValueError(f"no variant {arg!r}; there are {', '.join(variants)}")
    return variants[arg]()


def tiny() -> Experiment:
    return Experiment(
        name="electra_tiny",
        steps=1000,
        batch_size=32,
        model=TextEncoderConfig(context_length=128, num_layers=2, embed_dim=128, embedding_dim=64, num_heads=4, **ELECTRA),
        objective=ReplacedTokens(generator_size=0.5),
        optimizer=AdamW(learning_rate=1e-3, weight_decay=0.01, beta2=0.999, epsilon=1e-6),
        schedule=Schedule(warmup_steps=100, decay="linear", final_fraction=0.0),
        evaluation=Evaluation(every=250, rows=256),
    )


def small() -> Experiment:
    return Experiment(
        name="electra_small",
        steps=1_000_000,
        batch_size=128,
        model=TextEncoderConfig(context_length=128, num_layers=12, embed_dim=256, embedding_dim=128, num_heads=4, **ELECTRA),
        objective=ReplacedTokens(generator_size=0.25),
        optimizer=AdamW(learning_rate=5e-4, weight_decay=0.01, beta2=0.999, epsilon=1e-6),
        schedule=Schedule(warmup_steps=10_000, decay="linear", final_fraction=0.0),
        evaluation=Evaluation(every=10_000, rows=4096),
    )
