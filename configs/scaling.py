"""A scaling study on a CPU: fit a law to the losses of four widths, predict a fifth, then train it.

omnia prepare text --input input.txt --output shakespeare --tokenizer char --validation 0.1
omnia train configs/scaling.py --run-dir runs/scaling --data.shards shakespeare
2 CPU cores shared with other work, 15 min (7.6 min of processor time); nats per character over the last tenth of the text:
    widths 32, 48, 64, 80: 2.645 2.020 1.800 1.689; predicted for 112: 1.596; measured: 1.562, 2.1 % lower
"""

from model.config import ModelConfig
from model.presets import MODERN
from train.experiment import Evaluation, Muon, Samples, Scaling, Schedule


def get_config(arg: str = "") -> Scaling:
    if arg:
        raise ValueError(f"no variant {arg!r}; this file has none")
    return Scaling(
        sizes=(32, 48, 64, 80),
        predict=112,
        head_width=16,
        tokens_per_parameter=5.0,
        name="scaling",
        batch_size=24,
        model=ModelConfig(context_length=64, num_layers=3, embed_dim=64, num_heads=4, **MODERN),
        optimizer=Muon(),
        schedule=Schedule(warmup_steps=20, decay="linear", final_fraction=0.0),
        evaluation=Evaluation(every=0),
        samples=Samples(tokens=0),
    )
