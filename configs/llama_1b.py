"""The shape of Llama 3.2 1B, trained from scratch.

omnia prepare text --input CORPUS --output shards --tokenizer llama3/tokenizer.json
omnia train configs/llama_1b.py --run-dir runs/llama_1b --data.shards shards
Eight H100- or H200-class GPUs, 26 B tokens (Hoffmann et al. 2022: about 20 per parameter), two million per step.
Not run yet: no time or score.
"""

import dataclasses

from model.presets import preset
from train.experiment import AdamW, CausalLM, Checkpoints, Evaluation, Experiment, MeshShape, Schedule


def get_config(arg: str = "") -> Experiment:
    if arg:
        raise ValueError(f"no variant {arg!r}; there is only the plain one")
    return Experiment(
        name="llama_1b",
        steps=12_400,
        batch_size=512,
        micro_batches=16,
        model=dataclasses.replace(preset("llama3_1b"), context_length=4096, remat="full"),
        objective=CausalLM(z_loss=1e-4),
        optimizer=AdamW(learning_rate=3e-4),
        schedule=Schedule(warmup_steps=1000),
        mesh=MeshShape(data=1, fsdp=8),
        evaluation=Evaluation(every=500, rows=2048),
        checkpoints=Checkpoints(every=500),
    )
