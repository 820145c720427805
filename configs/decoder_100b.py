"""A decoder of 101 billion parameters for a TPU pod.

omnia prepare text --input CORPUS --output shards --tokenizer sentencepiece:32000, then copy shards to the bucket
omnia train configs/decoder_100b.py --run-dir runs/decoder_100b --data.shards gs://BUCKET/shards
512 TPU v5p chips, 2 T tokens, two million a step. Needs several
hosts, which a run does not support yet. Not run: no time or score is stated.
"""

from model.presets import preset
from train.experiment import AdamW, CausalLM, Checkpoints, Evaluation, Experiment, MeshShape, Schedule


def get_config(arg: str = "") -> Experiment:
    if arg:
        raise ValueError(f"no variant {arg!r}; there is only the plain one")
    return Experiment(
        name="decoder_100b",
        steps=1_000_000,
        batch_size=512,
        model=preset("decoder_100b"),
        objective=CausalLM(z_loss=1e-4),
        optimizer=AdamW(learning_rate=1e-4),
        schedule=Schedule(warmup_steps=2000),
        mesh=MeshShape(data=1, fsdp=128, tensor=4),
        evaluation=Evaluation(every=1000, rows=2048),
        checkpoints=Checkpoints(every=500),
    )
