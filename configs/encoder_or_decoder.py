"""Masked against next-token pretraining, and layers that share parameters: small models of one size, on the same text and compute.

omnia prepare text --input FILES --output SHARDS --tokenizer sentencepiece:4096 --validation 0.03
omnia train configs/encoder_or_decoder.py:masked --run-dir runs/masked --data.shards SHARDS
`python benchmarks/pretraining.py --shards SHARDS --probe PROBE.jsonl` trains all of them, three seeds each, and judges their vectors.
    next      a decoder that predicts the next token
    masked    an encoder that predicts masked tokens
    shared    that encoder, all of whose layers share their parameters, as ALBERT's do
"""

import dataclasses

from model.config import ModelConfig
from model.text_encoder_config import TextEncoderConfig
from train.experiment import Evaluation, Experiment, Muon, Samples, Schedule
from train.objectives.text.options import MaskedLM

SHAPE = {"context_length": 128, "num_layers": 4, "embed_dim": 128, "num_heads": 4, "positions": "rotary", "norm": "rmsnorm", "bias": False}


def get_config(arg: str = "masked") -> Experiment:
    models = {
        "next": ModelConfig(**SHAPE),
        "masked": TextEncoderConfig(**SHAPE, token_types=0, pooler=False),
        "shared": TextEncoderConfig(**SHAPE, token_types=0, pooler=False, layer_groups=1),
    }
    if arg not in models:
        raise ValueError(f"no variant {arg!r}; there are {', '.join(models)}")
    experiment = Experiment(
        name=f"encoder_or_decoder_{arg}",
        steps=400,
        batch_size=32,
        model=models[arg],
        optimizer=Muon(),
        schedule=Schedule(warmup_steps=30, decay="linear", final_fraction=0.0),
        evaluation=Evaluation(every=400),
        samples=Samples(tokens=0),
    )
    return experiment if arg == "next" else dataclasses.replace(experiment, objective=MaskedLM())
