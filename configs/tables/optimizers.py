"""Optimizers at equal steps on characters of Shakespeare, each at the best of several rates, chosen with a seed that is not in the table.

omnia reproduce optimizers
"""

from model.config import ModelConfig
from model.presets import MODERN
from train.experiment import Adafactor, AdamW, Checkpoints, Evaluation, Experiment, Lion, Muon, Optimizer, Samples, Schedule, ScheduleFree
from train.reproduce.files import SHAKESPEARE
from train.reproduce.table import CHARACTERS, NEEDS_GPU, ON_GPU, Better, Metric, Row, Table, training

OPTIMIZERS: dict[str, tuple[Optimizer, str]] = {
    "adamw": (AdamW(learning_rate=8e-3), "AdamW (Loshchilov and Hutter 2019)"),
    "muon": (Muon(learning_rate=0.04, adam_learning_rate=8e-3), "Muon (Jordan et al. 2024)"),
    "lion": (Lion(learning_rate=2e-3), "Lion (Chen et al. 2023)"),
    "adafactor": (Adafactor(learning_rate=0.12), "Adafactor (Shazeer and Stern 2018)"),
    "schedule_free": (ScheduleFree(learning_rate=8e-3), "schedule-free AdamW, constant rate (Defazio et al. 2024)"),
}


def get_config(arg: str = "adamw") -> Experiment:
    optimizer, _ = OPTIMIZERS[arg]
    return Experiment(
        name=f"optimizers, {arg}",
        steps=300,
        batch_size=24,
        model=ModelConfig(context_length=64, num_layers=3, embed_dim=64, num_heads=4, **MODERN),
        optimizer=optimizer,
        schedule=Schedule(warmup_steps=20, decay="constant" if arg == "schedule_free" else "linear", final_fraction=0.0),
        evaluation=Evaluation(every=0),
        checkpoints=Checkpoints(every=0),
        samples=Samples(tokens=0),
    )


def get_table() -> Table:
    def train(name: str, *options: str) -> str:
        return training(f"{{table}}:{name}", "--data.shards {shakespeare}", *options)

    return Table(
        title="Optimizers against AdamW",
        paper="Jordan et al. 2024 (Muon); Defazio et al. 2024 (schedule-free), figure 1",
        claim="At equal steps Muon reaches a lower loss than AdamW, and so does AdamW without a schedule.",
        metrics=(Metric("validation/loss", "validation loss", "nats per character"),),
        files=(SHAKESPEARE,),
        shared=(CHARACTERS,),
        rows=(
            *(Row(name, what, (train(name),)) for name, (_, what) in OPTIMIZERS.items()),
            *(
                Row(f"{name}_gpu", what, (train(name, ON_GPU),), tier="gpu", needs=NEEDS_GPU, read="best_loss")
                for name, (_, what) in OPTIMIZERS.items()
            ),
        ),
        claims=tuple(Better(f"{name}{size}", f"adamw{size}") for size in ("", "_gpu") for name in ("muon", "schedule_free")),
        note="3 layers of 64, 300 steps of 24 x 64 characters. How the rates were chosen, and times of a step, are in [log.md](log.md). "
        "Lion and Adafactor stand here for comparison: their papers claim no lower loss than AdamW's in this setting.",
    )
