"""How often a reward model prefers what people preferred, on a file of comparisons that it has not seen, with a 95 % interval.

python benchmarks/preferences.py runs/harmless test.jsonl
"""

import dataclasses
import math

import numpy as np
import tyro

from train.rl.environments.environment import Prompt
from train.rl.rewards.scoring import load_scorer
from train.sources.records import read_comparisons
from train.verbs.arguments import start_jax


@dataclasses.dataclass(frozen=True)
class Options:
    """Accuracy of a reward model on pairs."""

    run: tyro.conf.Positional[str]
    """Run of a reward model."""
    file: tyro.conf.Positional[str]
    """JSONL of {"prompt", "chosen", "rejected"}, or of two whole conversations without a prompt."""


def interval(right: float, count: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share (Wilson 1927)."""
    z2 = 1.96**2
    centre = (right + z2 / (2 * count)) / (1 + z2 / count)
    half = 1.96 / (1 + z2 / count) * math.sqrt(right * (1 - right) / count + z2 / (4 * count**2))
    return centre - half, centre + half


def main() -> None:
    options = tyro.cli(Options, description=__doc__)
    start_jax()
    pairs = read_comparisons(options.file)
    prompts = [Prompt(pair["prompt"], messages=pair["messages"]) for pair in pairs]
    score = load_scorer(options.run)
    best = score(prompts, [pair["responses"][pair["best"]] for pair in pairs])
    other = score(prompts, [pair["responses"][1 - pair["best"]] for pair in pairs])
    right = float(np.mean((best > other) + 0.5 * (best == other)))
    longer = float(np.mean([len(pair["responses"][pair["best"]]) > len(pair["responses"][1 - pair["best"]]) for pair in pairs]))
    low, high = interval(right, len(pairs))
    print(f"{len(pairs)} pairs: accuracy {right:.3f}, 95 % interval {low:.3f} to {high:.3f}; the longer one is preferred in {longer:.3f}")


if __name__ == "__main__":
    main()
