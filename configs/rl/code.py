"""Functions that parse: PPO on the model of the quickstart, and the quickstart's last part.

omnia train configs/rl/code.py --run-dir runs/code --start runs/quickstart
2 CPU cores, a minute: reward from 0.008 to 0.63 on 128 held-out prompts, at 20 nats of KL a response (another time 0.77 at 24).
The functions become methods with a line of docstring and plain assignments and calls, legible and without much sense: that is what the
reward asks for. With kl_coefficient 0.01 it is 0.95, and nearly every line is the same.
"""

from train.experiment import AdamW, Checkpoints, Evaluation, Experiment, Logging, Samples, Schedule
from train.rl.environments.code import PythonFunctions
from train.rl.options import PPO, Prompts


def get_config(arg: str = "") -> Experiment:
    if arg:
        raise ValueError(f"no variant {arg!r}; there is only the plain one")
    return Experiment(
        name="code, ppo",
        steps=40,
        batch_size=64,
        data=Prompts(environments=(PythonFunctions(),), prompt_tokens=12, validation=128),
        objective=PPO(
            response_tokens=112,
            temperature=0.7,
            critic="shared",
            epochs=1,
            gae_lambda=1.0,
            kl_coefficient=0.03,
            value_coefficient=0.5,
            value_clip=0.0,
        ),
        optimizer=AdamW(learning_rate=1e-3, weight_decay=0.0, beta2=0.99),
        schedule=Schedule(warmup_steps=4, decay="linear"),
        evaluation=Evaluation(every=0),
        checkpoints=Checkpoints(every=0),
        samples=Samples(every=0),
        logging=Logging(every=5),
    )
