"""Score against KL: what a price on leaving the start costs, on reviews that a small grammar makes.

omnia reproduce kl_price
"""

from train.reproduce.table import Better, Metric, Row, Shared, Table, training

PRICES = (0.0, 0.2, 1.0)


def get_table() -> Table:
    return Table(
        title="Reward against KL",
        paper="Ziegler et al. 2019, figure 3",
        claim="The lower the price of KL, the higher the score and the further from the start the policy ends.",
        metrics=(
            Metric("validation/score", "score", "good words less bad ones", lower_is_better=False),
            Metric("validation/kl", "KL", "nats a response"),
        ),
        shared=(Shared("start", (training("configs/rl/tiny.py:sentiment_start"),)),),
        rows=tuple(
            Row(
                f"price_{price:g}",
                f"a nat of KL costs {price:g} of reward",
                (
                    training(
                        "configs/rl/tiny.py:sentiment_ppo",
                        f"--start {{start}} --steps 12 --evaluation.every 0 --objective.kl-coefficient {price:g}",
                    ),
                ),
            )
            for price in PRICES
        ),
        claims=(
            Better("price_0", "price_0.2"),
            Better("price_0.2", "price_1"),
            Better("price_1", "price_0.2", metric="KL"),
            Better("price_0.2", "price_0", metric="KL"),
        ),
        across="KL",
        note="12 steps of 128 responses of 80 characters; the score is the environment's own, no reward model's.",
    )
