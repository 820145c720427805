"""Slates for readers whom click bait tires: by chance, by the next click, and learned with and without what comes later.

omnia reproduce slates
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np

from data.files import json_files
from train.reproduce.table import Better, Metric, Row, Shared, Table, training
from train.rl.environments.satisfaction import TOPICS, Satisfaction

CONFIG = "configs/rl/simulators.py:satisfaction"
LEARNING = "--steps 300 --batch-size 64 --objective.epochs 2 --objective.critic shared --objective.value-clip 0 --evaluation.every 0"
READERS = 200
"""Whom every policy meets."""
FIRST = 2
"""Turns that count as the first."""


def get_table() -> Table:
    def learned(name: str, turn_discount: float) -> Shared:
        return Shared(name, (training(f"{CONFIG}_ppo", f"--start {{start}} --objective.turn-discount {turn_discount:g}", LEARNING),))

    return Table(
        title="Slates with delayed reward",
        paper="Ie et al. 2019 (RecSim), section 5; Ie et al. 2019 (SlateQ), section 6",
        claim="A policy that learned from all that a session still earns gets more clicks than one that learned from the next click alone, "
        "and than the slate that is most likely clicked now.",
        metrics=(
            Metric("clicks", "clicks in a session", lower_is_better=False, digits=2),
            Metric("first", f"in its first {FIRST} turns", lower_is_better=False, digits=2),
            Metric("bait", "share of bait", digits=2),
            Metric("tried", "turns learned from", digits=0),
            Metric("minutes", "minutes of learning", digits=1),
        ),
        shared=(Shared("start", (training(f"{CONFIG}_start"),)), learned("learned_near", 0), learned("learned_far", 1)),
        rows=(
            Row("random", "slates by chance", ("python {table} play random {seed}",)),
            Row("next_click", "the slate most likely clicked now, exactly", ("python {table} play greedy {seed}",)),
            Row("near", "PPO on the clicks of each turn alone", ("python {table} policy {learned_near}",)),
            Row("far", "PPO on the clicks to come", ("python {table} policy {learned_far}",)),
            Row("knows", "whoever knows the reader: the best plan of one topic", ("python {table} knows",)),
        ),
        claims=(
            *(Better("far", other) for other in ("random", "next_click", "near")),
            *(Better(name, "far", metric=f"in its first {FIRST} turns") for name in ("next_click", "near")),
        ),
        note=f"Sessions of {Satisfaction().turns} turns, slates of {Satisfaction().slate} of eight items, four topics with a solid item "
        f"and a bait each; {READERS} of 80 kinds of readers, drawn. A click is counted by its probability. Both PPO policies begin as the "
        "same imitation of chance, and have as many sessions to learn from. The slate most likely clicked is found with the simulator's "
        "rules and all readers that the replies so far allow, so it needs no learning.",
    )


def measured(earned_BT: np.ndarray, said: list[str], learned: dict[str, float]) -> dict[str, float]:
    """earned_BT: clicks of each turn. said: all slates."""
    letters = "".join(said)
    bait = sum(letter.isupper() for letter in letters) / max(sum(letter.isalpha() for letter in letters), 1)
    return {"clicks": float(earned_BT.sum(1).mean()), "first": float(earned_BT[:, :FIRST].sum(1).mean()), "bait": bait} | learned


NOTHING = {"tried": 0, "minutes": 0.0}


def played(what: str, seed: int) -> dict[str, float]:
    import jax

    from train.rl.search.simulator_search import earned, greedy_turns, random_turns

    simulator, said = Satisfaction(), []
    turns = {"random": random_turns, "greedy": greedy_turns}[what](simulator)

    def heard(*asked: Any) -> list[str]:
        found = turns(*asked)
        said.extend(found)
        return found

    return measured(earned(simulator, readers(), heard, jax.random.key(seed)), said, NOTHING)


def readers() -> list[Any]:
    """Those of a run's validation, which are the same for all seeds."""
    return [Satisfaction().prompt(0, row, "validation") for row in range(READERS)]


def known() -> dict[str, float]:
    """Of all plans that name the solid item of the favourite topic, and then for some turns its bait, the best."""
    simulator, found, said = Satisfaction(), [], []
    for prompt in readers():
        topic, best = TOPICS[int(simulator.users.taste_C[prompt.facts["user"]].argmax())], (-1.0, [], [])
        for bait in range(simulator.turns + 1):
            plan = [topic * simulator.slate] * (simulator.turns - bait) + [topic.upper() * simulator.slate] * bait
            earned = [simulator.reply(prompt, tuple(plan[: turn + 1])).reward for turn in range(simulator.turns)]
            best = max(best, (sum(earned), earned, plan))
        found.append(best[1])
        said += best[2]
    return measured(np.array(found), said, NOTHING)


def sampled(folder: str) -> dict[str, float]:
    """Sessions of a run's policy, drawn; and what it cost, its start included."""
    from train.checkpoints.checkpointer import load_parameters
    from train.devices.mesh import inference_mesh
    from train.kinds import realise
    from train.rl.policy.questions import Questions
    from train.rl.policy.sampler import ResponseSampler
    from train.runs.directory import open_run
    from train.step.state import Purpose

    run = open_run(folder)
    experiment = run.experiment
    mesh = inference_mesh(experiment.mesh)
    questions = Questions(experiment, run.corpora())
    sampler = ResponseSampler(experiment, questions, realise(experiment.model), mesh)
    found = sampler(load_parameters(run, mesh)[0], questions.take(0, READERS, "validation"), Purpose.VALIDATION, 1)
    said_BR = sampler.host(found.rollout.mask_BR) > 0
    turn_BR = np.cumsum(said_BR & ~np.pad(said_BR, ((0, 0), (1, 0)))[:, :-1], 1) - 1
    turns = Satisfaction().turns
    earned_BT = np.stack([(found.scores * (turn_BR == turn)).sum(1) for turn in range(turns)], 1)
    said = [line for text in found.texts for line in text.split("\n") if not line.startswith("[")]
    cost = {"tried": experiment.steps * experiment.batch_size * turns, "minutes": minutes(folder) + minutes(experiment.start)}
    return measured(earned_BT, said, cost)


def minutes(folder: str) -> float:
    lines = [json_files.parse(line) for line in (Path(folder) / "metrics.jsonl").read_bytes().splitlines()]
    return max(line["time"] for line in lines if line["kind"] == "train") / 60


if __name__ == "__main__":
    what, *rest = sys.argv[1:]
    answer = sampled(rest[0]) if what == "policy" else known() if what == "knows" else played(rest[0], int(rest[1]))
    print(json_files.dumps(answer))
