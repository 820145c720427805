"""GPT-2 124M on packed text.

omnia prepare text --input CORPUS --output shards --tokenizer gpt2/tokenizer.json
omnia train configs/gpt2_124m.py --run-dir runs/gpt2_124m --data.shards shards
One H100- or H200-class GPU, 10 B tokens, half a million per step (Brown et al. 2020, table 2.1), in micro-batches of 16 rows.
Not run yet: no time or score.
"""

import dataclasses

from model.presets import preset
from train.experiment import AdamW, Checkpoints, Evaluation, Experiment, Schedule


def get_config(arg: str = "") -> Experiment:
    if arg:
        raise ValueError(f"no variant {arg!r}; there is only the plain one")
    return Experiment(
        name="gpt2_124m",
        steps=19_073,
        batch_size=512,
        micro_batches=32,
        model=dataclasses.replace(preset("gpt2"), vocab_size=50_304),  # a multiple of 128: faster products, and room for special ids
        optimizer=AdamW(learning_rate=6e-4),
        schedule=Schedule(warmup_steps=700),
        evaluation=Evaluation(every=500, rows=4096),
        checkpoints=Checkpoints(every=1000),
    )
