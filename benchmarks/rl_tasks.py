"""The tiny tasks of learning from reward, each against its goal: start and policies of every seed, judged on held-out prompts.

python benchmarks/rl_tasks.py --tasks walks sort --seeds 0 1 2 --folder runs/rl-tasks --json

Runs are `omnia` subprocesses. FOLDER keeps them, and results.jsonl with a line for each finished policy, so that the same command goes on
where it stopped. Seconds are of CPU time, start and policy together. Exit code 1 if a goal was missed.
"""

import dataclasses
import json
import os
import re
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import tyro

from model.heads import Head, logits, vocabulary_table
from model.transformer import Decoder
from train.checkpoints.checkpointer import load_parameters
from train.devices.mesh import inference_mesh
from train.rl.environments.text_tasks import Bandit
from train.rl.options import PreferenceLearning
from train.rl.policy.questions import Questions
from train.rl.policy.sampler import ResponseSampler
from train.runs.directory import START, Run, open_run
from train.step.state import Purpose
from train.verbs.arguments import start_jax

ROOT = Path(__file__).parent.parent
PROMPTS = 1024
"""Held-out prompts that a policy and its start answer."""


class Answers(NamedTuple):
    """Of one policy to held-out prompts: texts, and float32 [B] what its environment says they are worth."""

    texts: list[str]
    worth: np.ndarray


@dataclasses.dataclass(frozen=True)
class Goal:
    """kinds: policies to train. measures: of (answers of the start, of the policy), by name. reached: of those, and of `kl`, `cpu_s`."""

    kinds: tuple[str, ...]
    text: str
    measures: dict[str, Callable[[Answers, Answers], float]]
    reached: Callable[[dict[str, float]], bool]


def mean_worth(answers: Answers) -> float:
    return float(answers.worth.mean())


def right(answers: Answers) -> float:
    """Share of answers that are worth all they can be."""
    return float((answers.worth >= 1).mean())


def formed(answers: Answers) -> float:
    """Share of answers that are worth anything."""
    return float((answers.worth > 0).mean())


def rude_words(answers: Answers) -> float:
    """Rude words per sentence."""
    return float(-answers.worth.sum() / sum(len(re.findall(r"\.", text)) or 1 for text in answers.texts))


def deviations(before: Answers, after: Answers) -> float:
    """How far the mean rose, in standard deviations of the start's answers."""
    return float((after.worth.mean() - before.worth.mean()) / before.worth.std())


def win_rate(before: Answers, after: Answers) -> float:
    """Share of prompts on which the policy is better, draws counting half."""
    return float(((after.worth > before.worth) + 0.5 * (after.worth == before.worth)).mean())


def both(measure: Callable[[Answers], float]) -> dict[str, Callable[[Answers, Answers], float]]:
    return {"before": lambda before, after: measure(before), "after": lambda before, after: measure(after)}


def gained(lowest: float, highest: float, wanted: float) -> Callable[[dict[str, float]], bool]:
    return lambda found: lowest <= found["before"] <= highest and found["after"] >= wanted


GOALS = {
    "walks": Goal(
        ("grpo", "ppo"),
        "optimality at most 0.35 before, at least 0.9 after, within 300 s",
        both(mean_worth),
        lambda found: gained(0, 0.35, 0.9)(found) and found["cpu_s"] <= 300,
    ),
    "sort": Goal(("grpo",), "exact from 0.1-0.6 to above 0.95", both(right), gained(0.1, 0.6, 0.95)),
    "addition": Goal(("grpo",), "exact from about 0.5 (0.4-0.6) to above 0.9", both(right), gained(0.4, 0.6, 0.9)),
    "countdown": Goal(
        ("grpo",),
        "solved 0.2 more than by the start, formed above 0.99",
        both(right) | {"formed": lambda before, after: formed(after)},
        lambda found: found["after"] >= found["before"] + 0.2 and found["formed"] > 0.99,
    ),
    "sentiment": Goal(
        ("ppo",), "worth 2 standard deviations more", both(mean_worth) | {"deviations": deviations}, lambda found: found["deviations"] >= 2
    ),
    "rudeness": Goal(
        ("ppo",), "rude words per sentence from about 0.2 to below 0.01", both(rude_words), lambda found: found["after"] < 0.01
    ),
    "facts": Goal(
        ("ppo",), "win rate above 0.6 against the start", both(mean_worth) | {"win_rate": win_rate}, lambda found: found["win_rate"] > 0.6
    ),
    "bandit": Goal(
        ("ppo", "rloo", "grpo", "dpo"),
        "total variation distance to the optimum at most 0.02",
        both(mean_worth),
        lambda found: found["distance"] <= 0.02,
    ),
}


@dataclasses.dataclass(frozen=True)
class Options:
    """The tiny tasks of learning from reward, each against its goal."""

    tasks: tuple[str, ...] = tuple(GOALS)
    """Which; all by default."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Of start and policy."""
    folder: Path = Path("runs/rl-tasks")
    """Where runs and results are kept."""
    json: bool = False
    """Print the results as one JSON object at the end."""


def omnia(*arguments: object) -> float:
    """Run a command; the seconds of CPU time that it took."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-m", "omnia", *map(str, arguments)], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"omnia {' '.join(map(str, arguments))}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def trained(folder: Path, *arguments: object) -> float:
    """Train a run unless it is there already; the seconds of CPU time that it took, then or now."""
    note = folder / "cpu_s"
    if not note.exists():
        shutil.rmtree(folder, ignore_errors=True)
        note.write_text(str(omnia("train", *arguments, "--run-dir", folder)))
    return float(note.read_text())


def answers(run: Run, asked: Run) -> Answers:
    """What the newest policy of a run answers to the held-out prompts of another, whatever that one's seed."""
    experiment = dataclasses.replace(asked.experiment, seed=0)
    questions, mesh = Questions(experiment, asked.corpora()), inference_mesh(run.experiment.mesh)
    params, _ = load_parameters(run, mesh)
    found = ResponseSampler(experiment, questions, Decoder(experiment.model), mesh)(
        params, questions.take(0, PROMPTS, "validation"), Purpose.VALIDATION, 1
    )
    return Answers(found.texts, found.totals)


def probabilities(run: Run) -> tuple[np.ndarray, np.ndarray]:
    """float64 [V]: of the token that follows the bandit's prompt; and [arms]: of each arm with the end of the text after it."""
    params, _ = load_parameters(run)
    tokenizer = run.tokenizer()
    end, prompt = tokenizer.specials["document_end"], tokenizer.encode("a").tolist()
    arms = [tokenizer.encode(letter)[0] for letter in Bandit().alphabet]
    hidden_BTD = Decoder(run.experiment.model).apply({"params": params}, np.array([[end, *prompt, arm] for arm in arms])).hidden_BTD
    p_BTV = np.asarray(jax.nn.softmax(logits(Head(hidden_BTD, vocabulary_table(params)))), np.float64)
    return p_BTV[0, -2], p_BTV[0, -2, arms] * p_BTV[:, -1, end]


def distance(start: Run, policy: Run) -> float:
    """Total variation between a bandit's policy and the best at its price, start * exp(worth / price) / Z.

    A policy gradient's response is one token: over the whole vocabulary. A comparison is of texts with their ends, and says nothing of what
    none of them holds: over those texts.
    """
    o, bandit = policy.experiment.objective, Bandit()
    (best, best_texts), (found, found_texts) = probabilities(start), probabilities(policy)
    if isinstance(o, PreferenceLearning):
        best, found = best_texts * np.exp(np.array(bandit.worth) / o.beta), found_texts
    else:
        arms = [start.tokenizer().encode(letter)[0] for letter in bandit.alphabet]
        best[arms] *= np.exp(np.array(bandit.worth) / o.kl_coefficient)
    return float(0.5 * np.abs(found / found.sum() - best / best.sum()).sum())


def measure(task: str, kind: str, seed: int, folder: Path) -> dict:
    """Train what is missing and judge it."""
    goal, tiny, quiet = GOALS[task], f"configs/rl/tiny.py:{task}", ("--seed", seed, "--evaluation.every", 0)
    start, policy = folder / f"{task}-{seed}-start", folder / f"{task}-{seed}-{kind}"
    spent = trained(start, f"{tiny}_start", *quiet)
    more: tuple = ()
    if kind == "dpo":
        pairs = folder / f"{task}-{seed}-pairs.jsonl"
        if not pairs.exists():
            room = ("--prompt-tokens", 3, "--response-tokens", 1, "--batch-size", 8192)
            spent += omnia("label", start, "--output", pairs, "--prompts", 65_536, "--samples", 2, "--noise", 1, "--seed", seed, *room)
        more = ("--data.files", pairs)
    spent += trained(policy, f"{tiny}_{kind}", "--start", start, *quiet, *more)
    found = {"task": task, "kind": kind, "seed": seed, "cpu_s": spent}
    first, last = open_run(str(start), said=lambda line: None), open_run(str(policy), said=lambda line: None)
    summary = json.loads((policy / "summary.json").read_text())["validation"]
    if task == "bandit":
        found |= {"distance": distance(first, last)}
    else:
        began, ended = answers(open_run(str(policy / START), said=lambda line: None), last), answers(last, last)
        found |= {name: measured(began, ended) for name, measured in goal.measures.items()}
    found |= {name: summary[name] for name in ("kl", "win_rate") if name in summary and name not in found}
    return found | {"reached": bool(goal.reached(found))}


def main() -> int:
    options = tyro.cli(Options, description=__doc__)
    start_jax()
    os.makedirs(options.folder, exist_ok=True)
    results, rows = options.folder / "results.jsonl", []
    known = {}
    if results.exists():
        known = {(row["task"], row["kind"], row["seed"]): row for row in map(json.loads, results.read_text().splitlines())}
    for task in options.tasks:
        for seed in options.seeds:
            for kind in GOALS[task].kinds:
                row = known.get((task, kind, seed))
                if row is None:
                    row = measure(task, kind, seed, options.folder.absolute())
                    with results.open("a") as file:
                        file.write(json.dumps(row) + "\n")
                print({name: round(value, 4) if isinstance(value, float) else value for name, value in row.items()}, flush=True)
                rows.append(row)
    print_table(rows)
    if options.json:
        print(json.dumps({"results": rows}))
    return 0 if all(row["reached"] for row in rows) else 1


def print_table(rows: list[dict]) -> None:
    """A line for each task and kind, its numbers by seed."""
    print("| task | goal | before | after | also | KL | CPU s | reached |\n|---|---|---|---|---|---|---|---|")
    for task, kind in dict.fromkeys((row["task"], row["kind"]) for row in rows):
        mine = [row for row in rows if (row["task"], row["kind"]) == (task, kind)]

        def each(name: str, digits: int = 3, mine: list[dict] = mine) -> str:
            return ", ".join(f"{row[name]:.{digits}f}" for row in mine if name in row)

        extra = [name for name in ("distance", "deviations", "win_rate", "formed") if any(name in row for row in mine)]
        also = "; ".join(f"{name} {each(name, 4 if name == 'distance' else 3)}" for name in extra)
        won = f"{sum(row['reached'] for row in mine)} of {len(mine)}"
        cells = (f"{task}, {kind}", GOALS[task].text, each("before"), each("after"), also, each("kl", 2), each("cpu_s", 0), won)
        print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    sys.exit(main())
