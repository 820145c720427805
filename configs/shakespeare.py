"""Character-level Shakespeare."""
import dataclasses
from model.config import ModelConfig
from train.experiment import AdamW, Evaluation, Experiment, Logging, Samples, Schedule, TextData, Checkpoints


def get_config(arg: str = "nanogpt_cpu") -> Experiment:
    if arg != "nanogpt_cpu":
        raise ValueError(f"no variant {arg!r}; there is nanogpt_cpu")
    return Experiment(
        name="shakespeare", steps=2000, batch_size=12,
        model=ModelConfig(vocab_size=65, context_length=64, num_layers=4, embed_dim=128, num_heads=4, bias=False),
        optimizer=AdamW(learning_rate=1e-3, beta2=0.99),
        schedule=Schedule(warmup_steps=100),
        samples=Samples(prompts=("ROMEO:",), tokens=100),
    )
