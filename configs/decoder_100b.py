"""A decoder with 101 billion parameters for a TPU pod.

omnia plan configs/decoder_100b.py --topology v5p:8x8x8
omnia prepare text --input CORPUS --output shards --tokenizer sentencepiece:32000, then copy shards to the bucket
omnia train configs/decoder_100b.py --run-dir runs/decoder_100b --data.shards gs://BUCKET/shards
512 TPU v5p chips, 2 T tokens, two million per step. Compiled and planned (docs/plans.md), not run: no score yet.
"""

import dataclasses

from model.presets import preset
from train.experiment import AdamW, CausalLM, Checkpoints, Evaluation, Experiment, MeshShape, Schedule


def get_config(arg: str = "") -> Experiment:
    if arg:
        raise ValueError(f"no variant {arg!r}; there is only the plain one")
    return Experiment(
        name="decoder_100b",
        steps=1_000_000,
        batch_size=512,
        model=dataclasses.replace(preset("decoder_100b"), remat="dots"),
        objective=CausalLM(z_loss=1e-4),
        optimizer=AdamW(learning_rate=1e-4),
        schedule=Schedule(warmup_steps=2000),
        mesh=MeshShape(data=8, fsdp=64),  # two sides of the torus gather the parameters, the third sums gradients
        evaluation=Evaluation(every=1000, rows=2048),
        checkpoints=Checkpoints(every=500),
    )
