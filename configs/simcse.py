"""SimCSE (Gao et al. 2021), unsupervised: vectors of sentences, two views of each by dropout.

omnia prepare text --input FILES --output DIR --tokenizer TOKENIZER      (a sentence a document)
omnia train configs/simcse.py:tiny --run-dir runs/simcse --data.shards DIR
    tiny    a small encoder from nothing, for a CPU
    base    for a BERT to start from, `--start RUN`; learning rate and temperature of the paper; not run yet
"""

from model.text_encoder_config import TextEncoderConfig
from train.experiment import AdamW, Evaluation, Experiment, Schedule
from train.objectives.text.options import SimCSE

BERT = {"norm_position": "post", "norm_epsilon": 1e-12, "dropout": 0.1}


def get_config(arg: str = "tiny") -> Experiment:
    variants = {"tiny": tiny, "base": base}
    if arg not in variants:
        raise ValueError(f"no variant {arg!r}; there are {', '.join(variants)}")
    return variants[arg]()


def tiny() -> Experiment:
    return Experiment(
        name="simcse_tiny",
        steps=500,
        batch_size=32,
        model=TextEncoderConfig(context_length=64, num_layers=2, embed_dim=128, num_heads=2, **BERT),
        objective=SimCSE(texts=4),
        optimizer=AdamW(learning_rate=1e-3, weight_decay=0.01),
        schedule=Schedule(warmup_steps=50),
        evaluation=Evaluation(every=250, rows=256),
    )


def base() -> Experiment:
    return Experiment(
        name="simcse_base",
        steps=16_000,
        batch_size=32,
        model=TextEncoderConfig(context_length=64, num_layers=12, embed_dim=768, num_heads=12, **BERT),
        objective=SimCSE(texts=2, pool="first"),
        optimizer=AdamW(learning_rate=3e-5, weight_decay=0.0, beta2=0.999),
        schedule=Schedule(warmup_steps=0, decay="linear", final_fraction=0.0),
        evaluation=Evaluation(every=1000, rows=2048),
    )
