"""Federated learning by whose rows they are: airlines that keep their posts, beside all posts in one place.

omnia reproduce federated_users --data DIR
"""

import dataclasses

from train.experiment import SGD, AdamW, Experiment, MeshShape, Schedule
from train.reproduce.files import POSTS
from train.reproduce.labelled import ENCODER
from train.reproduce.table import Better, Metric, Row, Table, training
from train.step.federated.options import Federated
from train.tasks.classification import Classification
from train.tasks.recipe import fine_tuning

CLIENTS, ROUNDS, ROWS = 5, 30, 128
SERVERS = {
    "fedavg": ("FedAvg", SGD(learning_rate=1.0, clip_norm=0.0)),
    "fedadam": ("FedAdam", AdamW(learning_rate=1e-3, weight_decay=0.0, clip_norm=0.0)),
}


def get_config(arg: str = "fedavg") -> Experiment:
    data = Classification(label="sentiment", length=48)
    central = fine_tuning("federated", data, steps=ROUNDS * CLIENTS * ROWS // 32, rate=3e-4)
    central = dataclasses.replace(central, mesh=MeshShape(cpu_devices=1))
    if arg == "central":
        return central
    return dataclasses.replace(
        central,
        steps=ROUNDS,
        batch_size=CLIENTS,
        gradient=Federated(user="topic", user_rows=ROWS, local_learning_rate=0.1),
        optimizer=SERVERS[arg][1],
        schedule=Schedule(warmup_steps=0, decay="constant"),
    )


def get_table() -> Table:
    def row(variant: str, what: str) -> Row:
        files = "--start {encoder}/two --data.files {posts_train} --data.validation-files {posts_test}"
        return Row(variant, what, (training(f"{{table}}:{variant}", files),))

    return Table(
        title="Federated learning by whose rows they are",
        paper="McMahan et al. 2017, table 2; Reddi et al. 2021, table 1",
        claim="Five airlines that keep their posts learn nearly what one place would.",
        metrics=(Metric("validation/accuracy", "accuracy", "share", lower_is_better=False),),
        files=POSTS,
        shared=(ENCODER,),
        rows=(row("central", "all posts in one place, AdamW"), *(row(name, what) for name, (what, _) in SERVERS.items())),
        claims=tuple(Better(name, "central", by=-0.02) for name in SERVERS),
        note=f"4,565 posts of five days to learn from, 6,539 of the last three of the week to test on, two layers of MiniLM, {ROUNDS} "
        f"rounds of all {CLIENTS} airlines with {ROWS} posts each: as many examples as in one place. Claims allow 2 points.",
    )
