"""What a policy earns of a hidden user: chance, the script, greed, and search with each backup.

python benchmarks/simulators.py talk recommend every_offer results.jsonl

Results are kept, a line for each finished policy, so that the same command goes on where it stopped. All policies meet the same users,
`prompts` of each seed, from the validation split. Intervals are of the mean over all of them, normal, 95 %.
"""

import argparse
import json
import time
from pathlib import Path

import jax
import numpy as np

from train.rl.environments.simulators import HiddenUser, Recommendations, SlotFilling
from train.rl.search.search import Policy
from train.rl.search.simulator_search import Determinised, Turns, greedy_turns, play, random_turns, scripted_turns, search_turns
from train.verbs.arguments import start_jax

SIMULATORS: dict[str, HiddenUser] = {
    "talk": SlotFilling(),
    "recommend": Recommendations(),
    "every_offer": SlotFilling(every_offer=True),
}
BACKUPS: tuple[Policy, ...] = ("gumbel", "mean", "max")


def policies(simulator: HiddenUser, simulations: list[int], worlds: int) -> dict[str, Turns]:
    searches = {
        f"search, {policy}, {count}": search_turns(simulator, Determinised(policy, count, worlds), rows=50)
        for count in simulations
        for policy in BACKUPS
    }
    return {"random": random_turns(simulator), "scripted": scripted_turns(simulator), "greedy": greedy_turns(simulator), **searches}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("simulators", nargs="+", choices=SIMULATORS)
    parser.add_argument("results", type=Path, help="where finished policies are kept")
    parser.add_argument("--prompts", type=int, default=200, help="of each seed")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--simulations", type=int, nargs="+", default=[16, 64], help="in each user that a search samples")
    parser.add_argument("--worlds", type=int, default=16, help="users that a search samples")
    parser.add_argument("--only", default="", help="policies whose names hold this")
    options = parser.parse_args()
    start_jax()
    rows = [json.loads(line) for line in options.results.read_text().splitlines()] if options.results.exists() else []
    what = {"prompts": options.prompts, "seeds": options.seeds, "worlds": options.worlds}
    for name in options.simulators:
        simulator = SIMULATORS[name]
        for policy, turns in policies(simulator, options.simulations, options.worlds).items():
            key = {"simulator": name, "policy": policy, **what}
            if options.only not in policy or any(key.items() <= row.items() for row in rows):
                continue
            began, found = time.process_time(), []
            for seed in range(options.seeds):
                prompts = [simulator.prompt(seed, row, "validation") for row in range(options.prompts)]
                found.append(play(simulator, prompts, turns, jax.random.key(seed)))
            interval = 1.96 * float(np.std(found)) / np.size(found) ** 0.5
            seconds = time.process_time() - began
            rows.append(
                {**key, "mean": float(np.mean(found)), "interval": interval, "cpu_s": seconds, "by_seed": np.mean(found, 1).tolist()}
            )
            with options.results.open("a") as file:
                file.write(json.dumps(rows[-1]) + "\n")
            print(f"{name}, {policy}: {rows[-1]['mean']:.3f} +- {interval:.3f}, {seconds:.0f} s", flush=True)
    print("| policy | " + " | ".join(options.simulators) + " |\n|---|" + "---|" * len(options.simulators))
    cells = {(row["simulator"], row["policy"]): f"{row['mean']:.3f} ± {row['interval']:.3f}" for row in rows if what.items() <= row.items()}
    for policy in policies(SIMULATORS["talk"], options.simulations, options.worlds):
        print(f"| {policy} | " + " | ".join(cells.get((name, policy), "") for name in options.simulators) + " |")


if __name__ == "__main__":
    main()
