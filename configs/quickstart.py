"""A small model of Python code, trained on the machine's own standard library: what `make quickstart` runs.

omnia quickstart
"""

from model.config import ModelConfig
from train.experiment import AdamW, Checkpoints, Evaluation, Experiment, Logging, Samples, Schedule


def get_config(arg: str = "") -> Experiment:
    if arg:
        raise ValueError(f"no variant {arg!r}; there is only the plain one")
    return Experiment(
        name="quickstart",
        steps=900,
        batch_size=16,
        model=ModelConfig(
            context_length=128,
            num_layers=4,
            embed_dim=128,
            num_heads=4,
            norm="rmsnorm",
            activation="relu_squared",
            positions="rotary",
            bias=False,
            qk_norm=True,
        ),
        optimizer=AdamW(learning_rate=5e-3, beta2=0.98),
        schedule=Schedule(warmup_steps=40, decay="linear", final_fraction=0.0),
        evaluation=Evaluation(every=300, rows=256),
        checkpoints=Checkpoints(every=300),
        samples=Samples(every=300, prompts=("def ", "class "), tokens=96, temperature=0.7),
        logging=Logging(every=10),
    )
