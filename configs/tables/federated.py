"""Federated learning: what it costs beside one place, and which rules bear clients that lie.

omnia reproduce federated --data DIR
"""

import dataclasses

from train.experiment import AdamW, Experiment, MeshShape, Schedule
from train.reproduce.labelled import ENCODER, FILES, TEXTS
from train.reproduce.table import Better, Metric, Row, Shared, Table, training
from train.step.federated.options import Federated
from train.tasks.classification import Classification
from train.tasks.recipe import fine_tuning

CLIENTS, ROUNDS, ROWS = 20, 30, 64
RULES = ("mean", "krum")


def get_config(arg: str = "clients") -> Experiment:
    central = dataclasses.replace(
        fine_tuning("federated", Classification(length=32), steps=ROUNDS * 10 * ROWS // 32, rate=3e-4), mesh=MeshShape(cpu_devices=1)
    )
    if arg == "central":
        return central
    return dataclasses.replace(
        central,
        steps=ROUNDS,
        batch_size=10,
        gradient=Federated(user="client", user_rows=ROWS, local_learning_rate=0.1),
        optimizer=AdamW(learning_rate=1e-3, weight_decay=0.0, clip_norm=0.0),
        schedule=Schedule(warmup_steps=0, decay="constant"),
    )


def get_table() -> Table:
    def row(name: str, what: str, variant: str, files: str, *options: str) -> Row:
        start = f"--start {{encoder}}/two --data.files {files} --data.validation-files {{texts}}/trec_test.csv"
        return Row(name, what, (training(f"{{table}}:{variant}", start, *options),))

    poisoned = [
        row(
            f"poisoned_{rule}",
            f"a fifth lies, {rule.replace('_', ' ')}",
            "clients",
            "{uneven_rows}.csv",
            "--gradient.poisoned 0.2",
            f"--gradient.aggregate {rule}",
            *(["--gradient.byzantine 0.4"] if rule == "krum" else []),
        )
        for rule in RULES
    ]
    return Table(
        title="Federated learning",
        paper="McMahan et al. 2017, table 1; Yin et al. 2018, table 2; Blanchard et al. 2017, fig. 4",
        claim="Clients that keep their rows learn nearly what one place would, and Krum bears a fifth that lies, where the mean fails.",
        metrics=(Metric("validation/accuracy", "accuracy", "share", lower_is_better=False),),
        files=FILES,
        shared=(
            TEXTS,
            ENCODER,
            Shared("alike_rows", (f"omnia federate split {{texts}}/trec_train.csv --output {{run}}.csv --clients {CLIENTS} --alpha 100",)),
            Shared("uneven_rows", (f"omnia federate split {{texts}}/trec_train.csv --output {{run}}.csv --clients {CLIENTS} --alpha 0.5",)),
        ),
        rows=(
            row("central", "all rows in one place, AdamW", "central", "{texts}/trec_train.csv"),
            row("alike", f"{CLIENTS} clients that are alike", "clients", "{alike_rows}.csv"),
            row("uneven", f"{CLIENTS} clients that know different things", "clients", "{uneven_rows}.csv"),
            *poisoned,
        ),
        claims=(
            Better("alike", "central", by=-0.02),
            Better("uneven", "central", by=-0.02),
            Better("uneven", "poisoned_mean", by=0.03),
            Better("poisoned_krum", "uneven", by=-0.03),
        ),
        note=f"Questions and what they ask for, two layers of MiniLM, {ROUNDS} rounds of 10 clients with {ROWS} rows each, eight local "
        "steps, Adam at the server (FedAdam, Reddi et al. 2021): as many examples as in one place. Liars send ten times the contrary of "
        "their update; up to four of ten may be drawn in a round, which Krum is told to bear (its proof ends at three). Claims "
        "allow 2 points below one place, and 3 below nobody lying.",
    )
