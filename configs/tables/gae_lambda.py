"""The lambda of generalized advantage estimation on random walks in a graph.

omnia reproduce gae_lambda
"""

from train.reproduce.table import Better, Metric, Row, Shared, Table, training

LAMBDAS = (0.0, 0.9, 0.95, 1.0)


def get_table() -> Table:
    return Table(
        title="GAE: the lambda between critic and rewards",
        paper="Schulman et al. 2016 (GAE), figures 2 and 3",
        claim="An intermediate lambda learns more than trusting the critic alone (0), and than trusting rewards alone (1).",
        metrics=(Metric("validation/score", "score", "optimality of walks", lower_is_better=False),),
        shared=(Shared("start", (training("configs/rl/tiny.py:walks_start"),)),),
        rows=tuple(
            Row(
                f"lambda_{value:g}",
                "the critic alone" if value == 0 else "rewards alone" if value == 1 else "between",
                (
                    training(
                        "configs/rl/tiny.py:walks_ppo",
                        f"--start {{start}} --steps 30 --evaluation.every 0 --objective.gae-lambda {value:g}",
                    ),
                ),
                x=value,
            )
            for value in LAMBDAS
        ),
        claims=(Better("lambda_0.95", "lambda_0"), Better("lambda_0.95", "lambda_1")),
        x="lambda",
        note="30 steps of 128 walks of up to 10 tokens, with a reward at the end: much shorter episodes than the paper's. With 0 a "
        "reward moves back by one token in each step, and the policy collapses before the critic has learned anything.",
    )
