"""Best of n by reward models of three sizes that learned from few comparisons: what they say, and what the responses are worth.

omnia reproduce overoptimisation
"""

import json
import sys
from pathlib import Path

from train.reproduce.files import rows_of
from train.reproduce.table import Better, Metric, Row, Shared, Table, training

SIZES = {"small": 8, "medium": 16, "large": 32}
COUNTS = (1, 4, 16, 64)
PROMPTS, RESPONSES = 64, 128
"""Held-out prompts, and responses to each; best of n is the mean over all choices of n of them."""


def get_table() -> Table:
    def shape(width: int) -> str:
        return f"--model.embed-dim {width} --model.num-heads 2"

    judge = "--data.files {labels} --steps 150"
    label = "omnia label {start_large} --prompt-tokens 42 --response-tokens 80"
    return Table(
        title="Over-optimisation of reward models",
        paper="Gao et al. 2023, figures 1a and 3",
        claim="Optimising a reward model raises what it says more than what is meant, the more so the smaller the reward model.",
        metrics=(
            Metric("gold", "gold score", "good words less bad ones", lower_is_better=False),
            Metric("proxy", "proxy score", "what the reward model says", lower_is_better=False),
            Metric("gap", "gap", "gain of the proxy less gain of gold, both in standard deviations"),
        ),
        shared=(
            *(Shared(f"start_{size}", (training("configs/rl/reviews.py:start", shape(width)),)) for size, width in SIZES.items()),
            Shared("labels", (f"{label} --output {{run}} --prompts 96 --noise 1 --seed {{seed}}",)),
            Shared("responses", (f"{label} --output {{run}} --prompts {PROMPTS} --samples {RESPONSES} --noise 1e9 --seed 1000{{seed}}",)),
            *(
                Shared(f"reward_{size}", (training("configs/rl/reviews.py:reward", judge, f"--start {{start_{size}}}", shape(width)),))
                for size, width in SIZES.items()
            ),
            Shared("scored", (f"python {{table}} score {{run}} {{responses}} {' '.join(f'{{reward_{size}}}' for size in SIZES)}",)),
        ),
        rows=tuple(
            Row(
                f"{size}_{count}",
                f"best of {count} by a reward model of width {width}",
                (f"python {{table}} show {{scored}} {size}_{count}",),
                x=count,
                series=f"width {width}",
            )
            for size, width in SIZES.items()
            for count in COUNTS
        ),
        claims=(
            Better("large_64", "large_1"),
            Better("large_64", "small_64"),
            Better("large_64", "medium_64", metric="gap"),
            Better("medium_64", "small_64", metric="gap"),
            Better("large_1", "large_64", metric="gap"),
        ),
        x="n of best of n",
        note=f"96 noisy comparisons of reviews by a small grammar; {RESPONSES} responses to each of {PROMPTS} other prompts. With "
        "`--noise 1e9`, the labels of these responses are random: only their scores are used. The largest reward model starts from the "
        "policy that wrote the responses.",
    )


def score(output: Path, responses: str, *rewards: str) -> None:
    """What the best of n by each reward model is worth by itself and by the environment, for each n."""
    from train.rl.environments.environment import Prompt
    from train.rl.rewards.scoring import load_scorer

    records = rows_of(responses)
    found = {}
    for size, run in zip(SIZES, rewards, strict=True):
        scorer, values = load_scorer(run), []
        for record in records:
            prompts = [Prompt(record["prompt"])] * len(record["responses"])
            values.append((scorer(prompts, record["responses"]), record["scores"]))
        for count in COUNTS:
            both = [best_of(proxy, gold, count) for proxy, gold in values]
            means = {name: sum(one[place] for one in both) / len(both) for place, name in enumerate(("proxy", "gold"))}
            found[f"{size}_{count}"] = means | {
                "gap": gain(means["proxy"], [p for p, _ in values]) - gain(means["gold"], [g for _, g in values])
            }
    output.mkdir(parents=True, exist_ok=True)
    (output / "scores.json").write_text(json.dumps(found))


def gain(best: float, scores) -> float:
    """How far the best is above the mean response, in standard deviations of responses."""
    import numpy as np

    everything = np.concatenate([np.asarray(one, float) for one in scores])
    return float((best - everything.mean()) / everything.std())


def best_of(proxy, gold, count: int) -> tuple[float, float]:
    """The mean proxy and gold score of the best by `proxy` of `count` responses, over all choices (Nakano et al. 2021, appendix I)."""
    import numpy as np
    from scipy.special import gammaln

    proxy_N, gold_N = np.asarray(proxy, float), np.asarray(gold, float)
    order, ranks = np.argsort(proxy_N), np.arange(1, len(proxy_N) + 1)
    possible = ranks >= count  # the r-th lowest is the best of C(r - 1, count - 1) choices
    log_choices = gammaln(ranks[possible]) - gammaln(count) - gammaln(ranks[possible] - count + 1)
    share = np.exp(log_choices - (gammaln(len(ranks) + 1) - gammaln(count + 1) - gammaln(len(ranks) - count + 1)))
    return float(share @ proxy_N[order][possible]), float(share @ gold_N[order][possible])


if __name__ == "__main__":
    task, place, *rest = sys.argv[1:]
    if task == "score":
        score(Path(place), *rest)
    else:
        print(json.dumps(json.loads((Path(place) / "scores.json").read_text())[rest[0]]))
