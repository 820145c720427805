"""Federated learning, simulated: classes of texts whose rows belong to clients.

omnia train configs/tasks/federated.py:fedavg --run-dir RUN --start MODEL --data.files train.csv --gradient.user COLUMN
Others are fedprox, fedadam, fedyogi, fedadagrad, fedbuff, scaffold and robust. A step is a round, --batch-size the clients in it.
`omnia federate split` gives rows clients where files have none.
"""

import dataclasses

from train import Classification, Experiment, fine_tuning
from train.experiment import SGD, Adagrad, AdamW, Schedule, Yogi
from train.step.federated.options import Federated

# What clients changed is added as it is: a rate of 1, without momentum.
AVERAGING = SGD(learning_rate=1.0, clip_norm=0.0)
NAMES = {
    "fedavg": (AVERAGING, Federated()),
    "fedprox": (AVERAGING, Federated(proximal=0.1)),
    "fedadam": (AdamW(learning_rate=3e-3, weight_decay=0.0, beta2=0.99, epsilon=1e-3, clip_norm=0.0), Federated()),
    "fedyogi": (Yogi(learning_rate=3e-3, clip_norm=0.0), Federated()),
    "fedadagrad": (Adagrad(learning_rate=1e-2, clip_norm=0.0), Federated()),
    "fedbuff": (AVERAGING, Federated(staleness=4)),
    "scaffold": (AVERAGING, Federated(scaffold=True)),
    "robust": (AVERAGING, Federated(aggregate="trimmed_mean")),
}


def get_config(arg: str = "fedavg") -> Experiment:
    if arg not in NAMES:
        raise ValueError(f"no variant {arg!r}; there are {', '.join(NAMES)}")
    optimizer, gradient = NAMES[arg]
    experiment = fine_tuning("federated", Classification(), every=20)
    return dataclasses.replace(
        experiment, steps=100, batch_size=10, optimizer=optimizer, gradient=gradient, schedule=Schedule(warmup_steps=0, decay="constant")
    )
