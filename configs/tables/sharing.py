"""Layers that share their parameters, as ALBERT's do, against layers of their own, at equal depth and at equal parameters.

omnia reproduce sharing
"""

import dataclasses

from model.presets import MODERN
from model.text_encoder_config import TextEncoderConfig
from train.experiment import Checkpoints, Evaluation, Experiment, Muon, Samples, Schedule
from train.objectives.text.options import MaskedLM
from train.reproduce.files import SHAKESPEARE
from train.reproduce.table import CHARACTERS, NEEDS_GPU, ON_GPU, Better, Metric, Row, Table, training

OWN = TextEncoderConfig(context_length=64, num_layers=4, embed_dim=64, num_heads=4, token_types=0, pooler=False, **MODERN)
MODELS = {
    "own": (OWN, "layers with parameters of their own"),
    "shared": (dataclasses.replace(OWN, layer_groups=1), "as many layers that share all of theirs"),
    "single": (dataclasses.replace(OWN, num_layers=1), "one layer, as many parameters as `shared`"),
}


def get_config(arg: str = "own") -> Experiment:
    return Experiment(
        name=f"sharing, {arg}",
        steps=500,
        batch_size=32,
        model=MODELS[arg][0],
        objective=MaskedLM(),
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
        title="Layers that share parameters",
        paper="Lan et al. 2020 (ALBERT), table 4",
        claim="Sharing all layers' parameters costs some quality; less, we add, than leaving the layers out would.",
        metrics=(Metric("validation/loss", "masked loss", "nats per masked character"),),
        files=(SHAKESPEARE,),
        shared=(CHARACTERS,),
        rows=(
            *(Row(name, what, (train(name),)) for name, (_, what) in MODELS.items()),
            *(
                Row(f"{name}_gpu", what, (train(name, options),), tier="gpu", needs=NEEDS_GPU, read="best_loss")
                for name, (model, what) in MODELS.items()
                for options in (ON_GPU if model.num_layers > 1 else ON_GPU.replace("num-layers 6", "num-layers 1"),)
            ),
        ),
        claims=tuple(
            Better(f"{better}{size}", f"{worse}{size}")
            for size in ("", "_gpu")
            for better, worse in (("own", "shared"), ("shared", "single"))
        ),
        note="4 layers of 64, 500 steps of 32 x 64 characters, 15 % of them masked.",
    )
