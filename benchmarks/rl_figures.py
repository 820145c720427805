"""Pictures for docs/rl.md of two runs of configs/rl/reviews.py: numbers of PPO, and of a reward model that may be exploited.

python benchmarks/rl_figures.py runs/reviews/ppo runs/reviews/ppo_no_kl --output docs
"""

import dataclasses
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import tyro

from train.loop.telemetry import read_metrics

PANELS = (
    ("score and gold, held-out prompts", "evaluation", ("score", "gold")),
    ("KL to the start, nats a response", "train", ("objective/kl",)),
    ("its price", "train", ("objective/kl_coef",)),
    ("entropy, nats a response", "train", ("objective/entropy",)),
    ("tokens beyond the clip", "train", ("ppo/policy/clipfrac",)),
    ("returns that values explain", "train", ("ppo/val/var_explained",)),
)


@dataclasses.dataclass(frozen=True)
class Options:
    """Draw rl_ppo.png and rl_overoptimisation.png."""

    held: tyro.conf.Positional[Path]
    """Run of reviews.py:ppo."""
    free: tyro.conf.Positional[Path]
    """Run of reviews.py:ppo_no_kl."""
    output: Path = Path("docs")
    """Folder for the pictures."""


def series(run: Path, kind: str, name: str) -> tuple[list, list]:
    rows = [row for row in read_metrics(run) if row["kind"] == kind and name in row]
    return [row["step"] for row in rows], [row[name] for row in rows]


def main() -> None:
    options = tyro.cli(Options, description=__doc__)
    plt.rcParams |= {"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.3}
    figure, axes = plt.subplots(2, 3, figsize=(10, 5), layout="constrained")
    for panel, (title, kind, names) in zip(axes.flat, PANELS, strict=True):
        for name in names:
            panel.plot(*series(options.held, kind, name), label=name)
        panel.set_title(title, fontsize=9)
        panel.set_xlabel("step")
        if len(names) > 1:
            panel.legend(frameon=False)
    figure.savefig(options.output / "rl_ppo.png", dpi=110)

    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
    for name, label in (("score", "score: the reward model's, in standard deviations"), ("gold", "gold: good words less bad ones")):
        left.plot(*series(options.free, "evaluation", name), label=label)
        right.plot(series(options.free, "evaluation", "kl")[1], series(options.free, "evaluation", name)[1], marker=".", label=name)
    left.set_xlabel("step")
    left.legend(frameon=False)
    right.set_xlabel("KL to the start, nats a response")
    right.legend(frameon=False)
    figure.savefig(options.output / "rl_overoptimisation.png", dpi=110)


if __name__ == "__main__":
    main()
