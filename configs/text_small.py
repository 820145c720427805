"""A small text model for a CPU. The reward model of configs/rl/harmless.py and the policies of configs/rl/mawps.py start from it.

omnia prepare text --input FILE ... --output runs/text/shards --tokenizer sentencepiece:4096 --validation 0.02
omnia train configs/text_small.py --run-dir runs/text/lm --data.shards runs/text/shards
One core, 32 minutes beside two other jobs, on 8.3 MB of speeches, WikiText-2, dialogues and word problems: 3.741 nats per token,
1.496 bits per byte.
"""

from model.config import ModelConfig
from model.presets import MODERN
from train.experiment import Evaluation, Experiment, Muon, Samples, Schedule


def get_config(arg: str = "") -> Experiment:
    if arg:
        raise ValueError(f"no variant {arg!r}; there is one")
    return Experiment(
        name="text_small",
        steps=500,
        batch_size=24,
        model=ModelConfig(context_length=256, num_layers=3, embed_dim=128, num_heads=4, **MODERN),
        optimizer=Muon(),
        schedule=Schedule(warmup_steps=20, decay="linear", final_fraction=0.0),
        evaluation=Evaluation(every=250),
        samples=Samples(prompts=("The people of the United States",), tokens=60),
    )
