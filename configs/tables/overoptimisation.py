"""Best of n by reward models of three sizes that learned from few comparisons: what they say, and what the responses are worth.

omnia reproduce overoptimisation
"""

from train.reproduce.table import Better, Metric, Row, Shared, Table, training

SIZES = {"small": 8, "medium": 16, "large": 64}
COUNTS = (1, 4, 16, 64)


def get_table() -> Table:
    reward = "configs/rl/reviews.py:reward"
    policy = "configs/rl/reviews.py:ppo"
    judged = "--start {start} --steps 1 --optimizer.learning-rate 1e-12 --evaluation.every 0 --samples.tokens 0"
    return Table(
        title="Over-optimisation of reward models",
        paper="Gao et al. 2023, figures 1a and 3",
        claim="Optimising a reward model raises what it says more than what is meant, the more so the smaller the reward model.",
        metrics=(
            Metric("gold", "gold score", "good words less bad ones", lower_is_better=False),
            Metric("score", "proxy score", "standard deviations", lower_is_better=False),
        ),
        shared=(
            Shared("start", (training("configs/rl/reviews.py:start"),)),
            Shared(
                "labels",
                ("omnia label {start} --output {run} --prompts 64 --noise 1 --prompt-tokens 42 --response-tokens 80 --seed {seed}",),
            ),
            *(
                Shared(
                    f"reward_{size}",
                    (training(reward, f"--data.files {{labels}} --steps 150 --model.embed-dim {width} --model.num-heads 2"),),
                )
                for size, width in SIZES.items()
            ),
            *(
                Shared(
                    f"judge_{size}",
                    (training(policy, f"{judged} --data.environments.0.reward.run {{reward_{size}}}"),),
                )
                for size in SIZES
            ),
        ),
        rows=tuple(
            Row(
                f"{size}_{count}",
                f"best of {count} by a reward model of width {width}",
                (f"omnia evaluate {{judge_{size}}} --decode best_of --passes {count} --rows 64 --batch-size 64 --json",),
                x=count,
                series=f"width {width}",
            )
            for size, width in SIZES.items()
            for count in COUNTS
        ),
        claims=(
            Better("large_64", "large_1"),
            Better("large_64", "small_64"),
            Better("large_64", "medium_64"),
            Better("small_64", "small_1"),
        ),
        x="n of best of n",
        note="64 noisy comparisons of reviews by a small grammar; 64 held-out prompts. Gold is what the comparisons were about.",
    )
