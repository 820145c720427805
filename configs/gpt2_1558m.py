"""GPT-2 1.5B on packed text.

omnia prepare text --input CORPUS --output shards --tokenizer gpt2/tokenizer.json
omnia train configs/gpt2_1558m.py --run-dir runs/gpt2_1558m --data.shards shards
Eight H100- or H200-class GPUs, 32 B tokens, one million per step. Not run yet: no time or score.
"""

import dataclasses

from model.presets import preset
from train.experiment import AdamW, Checkpoints, Evaluation, Experiment, MeshShape, Schedule


def get_config(arg: str = "") -> Experiment:
    if arg:
        raise ValueError(f"no variant {arg!r}; there is only the plain one")
    return Experiment(
        name="gpt2_1558m",
        steps=30_517,
        batch_size=1024,
        micro_batches=8,
        model=dataclasses.replace(preset("gpt2_xl"), vocab_size=50_304, remat="dots"),
        optimizer=AdamW(learning_rate=2e-4),
        schedule=Schedule(warmup_steps=700),
        mesh=MeshShape(data=1, fsdp=8),
        evaluation=Evaluation(every=500, rows=4096),
        checkpoints=Checkpoints(every=500),
    )
