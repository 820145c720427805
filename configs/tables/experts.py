"""A mixture of experts against dense models at equal FLOPs and at equal parameters, on characters of Shakespeare.

omnia reproduce experts
"""

import dataclasses

from model.config import ModelConfig
from model.presets import MODERN
from train.experiment import Checkpoints, Evaluation, Experiment, Muon, Samples, Schedule
from train.reproduce.files import SHAKESPEARE
from train.reproduce.table import CHARACTERS, NEEDS_GPU, ON_GPU, Better, Metric, Row, Table, training

DENSE = ModelConfig(context_length=64, num_layers=3, embed_dim=64, num_heads=4, **MODERN | {"gated": False, "mlp_dim": 128})
MODELS = {
    "dense": (DENSE, "one feed-forward layer of 128 a block"),
    "experts_1": (dataclasses.replace(DENSE, experts=8, experts_per_token=1), "8 of that size, each token through one"),
    "experts_2": (dataclasses.replace(DENSE, experts=16, mlp_dim=64), "16 of half that size, each token through two"),
    "wide": (dataclasses.replace(DENSE, mlp_dim=8 * 128), "one layer as large as all 8: their parameters, 8 times the FLOPs there"),
}


def get_config(arg: str = "dense") -> Experiment:
    return Experiment(
        name=f"experts, {arg}",
        steps=400,
        batch_size=24,
        model=MODELS[arg][0],
        optimizer=Muon(),
        schedule=Schedule(warmup_steps=20, decay="linear", final_fraction=0.0),
        evaluation=Evaluation(every=0),
        checkpoints=Checkpoints(every=0),
        samples=Samples(tokens=0),
    )


def get_table() -> Table:
    def train(name: str, *options: str) -> str:
        return training(f"{{table}}:{name}", "--data.shards {shakespeare}", *options)

    return Table(
        title="Mixture of experts against dense",
        paper="Fedus et al. 2021 (Switch Transformer), figure 4",
        claim="At equal FLOPs for each token, a model with many experts reaches a lower loss than a dense one.",
        metrics=(Metric("validation/loss", "validation loss", "nats per character"),),
        files=(SHAKESPEARE,),
        shared=(CHARACTERS,),
        rows=(
            *(Row(name, what, (train(name),)) for name, (_, what) in MODELS.items()),
            *(
                Row(
                    f"{name}_gpu",
                    f"{what}; feed-forward layers 6 times as wide",
                    (train(name, ON_GPU, f"--model.mlp-dim {6 * model.mlp_dim}"),),
                    tier="gpu",
                    needs=NEEDS_GPU,
                    read="best_loss",
                )
                for name, (model, what) in MODELS.items()
            ),
        ),
        claims=tuple(Better(f"{name}{size}", f"dense{size}") for size in ("", "_gpu") for name in ("experts_1", "experts_2")),
        note="3 layers of 64, 400 steps of 24 x 64 characters.",
    )
