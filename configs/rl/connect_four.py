"""Connect-four with AlphaZero, learned from nothing but its rules.

omnia train configs/rl/connect_four.py --run-dir runs/connect_four
One CPU core, 404 CPU seconds: wins 87 % of 200 games against plain tree search with as many simulations (one seed).
"""

from train.experiment import AdamW, Checkpoints, Evaluation, Experiment, Logging, MeshShape, Schedule
from train.rl.games.options import AlphaZero, BoardGame


def get_config(arg: str = "") -> Experiment:
    return Experiment(
        name="connect-four",
        steps=120,
        batch_size=256,
        data=BoardGame("connect_four", opening_plies=8, exploring_plies=8),
        objective=AlphaZero(simulations=32, minibatches=8, bootstrap=0.5),
        optimizer=AdamW(learning_rate=1.5e-3, weight_decay=0.01),
        schedule=Schedule(warmup_steps=20, final_fraction=0.05),
        mesh=MeshShape(cpu_devices=1),
        evaluation=Evaluation(every=40),
        checkpoints=Checkpoints(every=20),
        logging=Logging(every=5),
    )
