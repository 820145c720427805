"""ALBERT (Lan et al. 2020): one set of layers for all, narrow embeddings, and the order of sentences beside masked spans.

omnia prepare text --input FILES --output DIR --tokenizer TOKENIZER
omnia train configs/albert.py:tiny --run-dir runs/albert --data.shards DIR
    tiny    for a CPU
    base    12 million parameters; the paper's batches are 4096 rows; not run yet

The paper masks spans of up to three tokens; these are SpanBERT's, up to ten.
"""

from model.text_encoder_config import TextEncoderConfig
from train.experiment import AdamW, Evaluation, Experiment, Schedule
from train.objectives.text.options import MaskedLM
from train.sources.pairs import SentencePairData

ALBERT = {"norm_position": "post", "norm_epsilon": 1e-12, "activation": "gelu_tanh", "layer_groups": 1}


def get_config(arg: str = "tiny") -> Experiment:
    variants = {"tiny": tiny, "base": base}
    if arg not in variants:
        raise ValueError(f"no variant {arg!r}; there are {', '.join(variants)}")
    return variants[arg]()


def tiny() -> Experiment:
    return Experiment(
        name="albert_tiny",
        steps=1000,
        batch_size=32,
        model=TextEncoderConfig(context_length=128, num_layers=4, embed_dim=128, embedding_dim=32, num_heads=2, **ALBERT),
        data=SentencePairData(negatives="swapped"),
        objective=MaskedLM(spans=True, sentence_pairs=1.0),
        optimizer=AdamW(learning_rate=1e-3, weight_decay=0.01, beta2=0.999),
        schedule=Schedule(warmup_steps=100, decay="linear", final_fraction=0.0),
        evaluation=Evaluation(every=250, rows=256),
    )


def base() -> Experiment:
    return Experiment(
        name="albert_base",
        steps=125_000,
        batch_size=4096,
        micro_batches=32,
        model=TextEncoderConfig(context_length=512, num_layers=12, embed_dim=768, embedding_dim=128, num_heads=12, **ALBERT),
        data=SentencePairData(negatives="swapped"),
        objective=MaskedLM(spans=True, sentence_pairs=1.0),
        optimizer=AdamW(learning_rate=1.76e-3, weight_decay=0.01, beta2=0.999),
        schedule=Schedule(warmup_steps=3125, decay="linear", final_fraction=0.0),
        evaluation=Evaluation(every=5000, rows=4096),
    )
