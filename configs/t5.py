"""T5 (Raffel et al. 2020): an encoder-decoder that writes the spans that sentinels stand for; and its rivals in the paper.

omnia prepare text --input FILES --output DIR --tokenizer TOKENIZER
omnia train configs/t5.py:tiny --run-dir runs/t5 --data.shards DIR
    tiny      span corruption, for a CPU
    prefix    prefix language modelling, for a CPU
    bart      reconstruction of shuffled and infilled text (Lewis et al. 2020), for a CPU
    base      T5 v1.1, 248 million parameters with a vocabulary of 32,128; batches of 128 rows of 512 tokens, as in the paper; not run yet
"""

import dataclasses

from model.encoder_decoder_config import EncoderDecoderConfig
from train.experiment import Adafactor, AdamW, Evaluation, Experiment, Samples, Schedule
from train.objectives.text.options import AutoEncoding, PrefixLM, SpanDenoising

# The blocks of T5 v1.1, whose output projection is its own: tied to the embedding, T5 scales its logits and begins with embeddings of
# variance 1.
T5 = {"norm": "rmsnorm", "norm_epsilon": 1e-6, "activation": "gelu_tanh", "gated": True, "bias": False, "positions": "relative"}
T5 |= {"tied_embeddings": False}


def get_config(arg: str = "tiny") -> Experiment:
    variants = {"tiny": tiny, "prefix": prefix, "bart": bart, "base": base}
    if arg not in variants:
        raise ValueError(f"no variant {arg!r}; there are {', '.join(variants)}")
    return variants[arg]()


def tiny() -> Experiment:
    return Experiment(
        name="t5_tiny",
        steps=1000,
        batch_size=16,
        model=EncoderDecoderConfig(context_length=128, num_layers=2, embed_dim=128, num_heads=4, **T5),
        objective=SpanDenoising(),
        optimizer=AdamW(learning_rate=2e-3),
        schedule=Schedule(warmup_steps=100),
        evaluation=Evaluation(every=250, rows=256),
        samples=Samples(tokens=0),
    )


def prefix() -> Experiment:
    return dataclasses.replace(tiny(), name="t5_prefix", objective=PrefixLM())


def bart() -> Experiment:
    return dataclasses.replace(tiny(), name="t5_bart", objective=AutoEncoding(shuffling="sentences"))


def base() -> Experiment:
    return Experiment(
        name="t5_base",
        steps=524_288,
        batch_size=128,
        model=EncoderDecoderConfig(context_length=512, num_layers=12, embed_dim=768, num_heads=12, head_dim=64, mlp_dim=2048, **T5),
        objective=SpanDenoising(),
        optimizer=Adafactor(learning_rate=1e-2),
        schedule=Schedule(warmup_steps=10_000, decay="linear", final_fraction=0.0),
        evaluation=Evaluation(every=10_000, rows=2048),
        samples=Samples(tokens=0),
    )
