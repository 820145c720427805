"""The loss of a larger model, foretold from smaller ones before it is trained, and what simpler forecasts say.

omnia reproduce scaling
"""

import sys
from pathlib import Path

from model.config import ModelConfig
from model.presets import MODERN
from train.experiment import Checkpoints, Evaluation, Muon, Samples, Scaling, Schedule
from train.reproduce.files import SHAKESPEARE
from train.reproduce.table import CHARACTERS, Better, Metric, Row, Shared, Table, training

FORECASTS = {
    "law": "L(C) = a C^-b + c, fitted to the losses of four sizes",
    "power": "L(C) = a C^-b through the same",
    "largest": "the loss of the largest of them: no gain",
}


def get_config(arg: str = "") -> Scaling:
    return Scaling(
        sizes=(32, 40, 48, 64),
        predict=96,
        head_width=8,
        tokens_per_parameter=8.0,
        name="scaling, small",
        batch_size=24,
        model=ModelConfig(context_length=64, num_layers=2, embed_dim=64, num_heads=4, **MODERN),
        optimizer=Muon(),
        schedule=Schedule(warmup_steps=10, decay="linear", final_fraction=0.0),
        evaluation=Evaluation(every=0),
        checkpoints=Checkpoints(every=0),
        samples=Samples(tokens=0),
    )


def get_table() -> Table:
    return Table(
        title="Scaling laws: the loss of a larger model",
        paper="OpenAI 2023 (GPT-4), figure 1; Kaplan et al. 2020; Hoffmann et al. 2022",
        claim="A power law with a constant, fitted to small runs, forecasts the loss of a larger one better than simpler rules do.",
        metrics=(
            Metric("error", "error of the forecast", "share of the loss measured afterwards", digits=4),
            Metric("exponent", "exponent of compute"),
            Metric("loss", "loss measured", "nats per character"),
        ),
        files=(SHAKESPEARE,),
        shared=(
            CHARACTERS,
            Shared("study", (training("{table}", "--data.shards {shakespeare}"),)),
        ),
        rows=tuple(Row(name, what, (f"python {{table}} {{study}} {name}",)) for name, what in FORECASTS.items()),
        claims=(Better("law", "power"), Better("law", "largest")),
        note="Widths 32 to 64 forecast 96; 8 characters for each parameter, so steps grow with the size. For compute, Kaplan et al. find "
        "an exponent of 0.050; the fit of Hoffmann et al. gives 0.34 x 0.28 / (0.34 + 0.28) = 0.154 above their constant.",
    )


def forecast(study: Path, kind: str) -> dict[str, float]:
    """How far a forecast was from the loss that was then measured, as a share of it; and the exponent of a law."""
    import numpy as np

    from data.files import json_files

    found = json_files.read(study / "scaling.json", "Train the study.")
    flops, losses = (np.array([point[name] for point in found["points"]]) for name in ("flops", "loss"))
    measured, power = found["measured"]["loss"], np.polyfit(np.log(flops), np.log(losses), 1)
    forecasts = {
        "law": (found["prediction"]["loss"], found["law"]["b"]),
        "power": (float(np.exp(np.polyval(power, np.log(found["measured"]["flops"])))), -float(power[0])),
        "largest": (float(losses[-1]), 0.0),
    }
    predicted, exponent = forecasts[kind]
    return {"error": abs(predicted / measured - 1), "exponent": exponent, "loss": measured}


if __name__ == "__main__":
    from data.files import json_files

    print(json_files.dumps(forecast(Path(sys.argv[1]), sys.argv[2])))
