"""Tic-tac-toe with AlphaZero, learned from nothing but its rules.

omnia train configs/rl/tictactoe.py --run-dir runs/tictactoe
One CPU core, 80 to 100 CPU seconds: loses none of 200 games against perfect play (three seeds).
"""

from train.experiment import AdamW, Checkpoints, Evaluation, Experiment, Logging, MeshShape, Schedule
from train.rl.games.options import AlphaZero, BoardGame


def get_config(arg: str = "") -> Experiment:
    return Experiment(
        name="tic-tac-toe",
        steps=200,
        batch_size=256,
        data=BoardGame("tic_tac_toe", opening_plies=7, exploring_plies=3),
        objective=AlphaZero(simulations=16, minibatches=8),
        optimizer=AdamW(learning_rate=3e-3, weight_decay=0.01),
        schedule=Schedule(warmup_steps=20, final_fraction=0.05),
        mesh=MeshShape(cpu_devices=1),
        evaluation=Evaluation(every=0),
        checkpoints=Checkpoints(every=50),
        logging=Logging(every=10),
    )
