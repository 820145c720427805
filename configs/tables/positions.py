"""Kinds of positions, at the length of training and at four times that.

omnia reproduce positions
"""

from model.config import ModelConfig
from train.experiment import Checkpoints, Evaluation, Experiment, Muon, Samples, Schedule
from train.reproduce.files import SHAKESPEARE
from train.reproduce.table import CHARACTERS, Better, Metric, Row, Table, training

KINDS = {
    "sinusoidal": "sinusoids added to the embedding (Vaswani et al. 2017)",
    "rotary": "rotary (Su et al. 2021)",
    "relative": "a bias by distance, in buckets (T5)",
    "distance": "sinusoids of distances (Transformer-XL)",
}
LENGTH, LONGER = 64, 256


def get_config(arg: str = "rotary") -> Experiment:
    return Experiment(
        name=f"positions, {arg}",
        steps=400,
        batch_size=24,
        model=ModelConfig(context_length=LENGTH, num_layers=3, embed_dim=64, num_heads=4, norm="rmsnorm", bias=False, positions=arg),
        optimizer=Muon(),
        schedule=Schedule(warmup_steps=20, decay="linear", final_fraction=0.0),
        evaluation=Evaluation(every=0),
        checkpoints=Checkpoints(every=0),
        samples=Samples(tokens=0),
    )


def get_table() -> Table:
    return Table(
        title="Positions beyond the length of training",
        paper="Press et al. 2022 (ALiBi), figure 1; Dai et al. 2019 (Transformer-XL)",
        claim="Positions that act by the distance of a key read longer texts than in training better than sinusoidal and rotary ones.",
        metrics=(Metric("long", f"loss at {LONGER}", "nats per character"), Metric("trained", f"loss at {LENGTH}", "nats per character")),
        files=(SHAKESPEARE,),
        shared=(CHARACTERS,),
        rows=tuple(
            Row(kind, what, (training(f"{{table}}:{kind}", "--data.shards {shakespeare}"), "python {table} {run}"))
            for kind, what in KINDS.items()
        ),
        claims=(
            Better("relative", "rotary"),
            Better("relative", "sinusoidal"),
            Better("distance", "rotary"),
        ),
        note=f"3 layers of 64, 400 steps of 24 x {LENGTH} characters. The paper's ALiBi is not built in; T5's bias stands for it.",
    )


def measure(run_dir: str) -> dict[str, float]:
    """The mean loss at both lengths, over as many characters."""
    from train.evaluation.long_context import evaluate_by_position
    from train.runs.directory import open_run

    run = open_run(run_dir)
    lengths = {"trained": LENGTH, "long": LONGER}
    rows = {name: 400 * LENGTH // length for name, length in lengths.items()}
    return {
        name: evaluate_by_position(run, run.corpora(), rows=rows[name], batch_size=8, context_length=length)["loss"]
        for name, length in lengths.items()
    }


if __name__ == "__main__":
    import sys

    from data.files import json_files

    print(json_files.dumps(measure(sys.argv[1])))
