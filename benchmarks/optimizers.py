"""Every optimizer on one small run, at equal steps: the model and batch of configs/shakespeare.py:best, 300 steps.

python benchmarks/optimizers.py input.txt FOLDER

FOLDER gets the prepared corpus and results.jsonl, a line for each finished run, so that the same command goes on where it stopped. The
rate is chosen among three with seed 3; the table is of seeds 0 to 2. Losses do not depend on what else the machine does. Times do: they are
taken last, all optimizers by turns, and the table states medians.
"""

import argparse
import dataclasses
import json
import statistics
import time
from pathlib import Path

import jax

from data.text.prepare import PrepareText, prepare_text
from data.text.shards import Corpus
from model.transformer import Decoder
from train.devices.mesh import divide_cpu, make_mesh, put_batch
from train.evaluation.totals import Evaluator
from train.experiment import SGD, Adafactor, AdamW, Experiment, Lion, Muon, Optimizer, Schedule, ScheduleFree, TextData
from train.objectives.bind import bind
from train.optimizers.build import make_optimizer
from train.sources.dataset import dataset_of
from train.step.state import initial_state
from train.step.update import jit_update, make_update
from train.verbs.arguments import start_jax
from train.verbs.config_files import load_config

STEPS, SEARCH_SEED, SEEDS, ROUNDS, STEPS_A_ROUND = 300, 3, (0, 1, 2), 11, 5
WITH_RATES: list[tuple[Optimizer, ...]] = [
    tuple(AdamW(learning_rate=rate) for rate in (4e-3, 8e-3, 2e-3)),
    tuple(Muon(learning_rate=rate, adam_learning_rate=0.15 * rate) for rate in (0.02, 0.04, 0.01)),
    tuple(ScheduleFree(learning_rate=rate) for rate in (8e-3, 1.6e-2, 4e-3)),
    tuple(Lion(learning_rate=rate) for rate in (1e-3, 5e-4, 2e-3)),
    tuple(Adafactor(learning_rate=rate) for rate in (0.03, 0.06, 0.015)),
    tuple(SGD(learning_rate=rate, momentum=0.9) for rate in (0.3, 1.0, 0.1)),
]
"""Each around the rate that is believed in, which comes first."""


class Bench:
    """One optimizer with its rate, compiled once for all seeds: nothing in a step of this model is random."""

    def __init__(self, experiment: Experiment, options: Optimizer, corpora: list[Corpus]):
        decay = "constant" if isinstance(options, ScheduleFree) else "linear"
        schedule = Schedule(warmup_steps=20, decay=decay, final_fraction=0.0)
        self.experiment = dataclasses.replace(experiment, optimizer=options, schedule=schedule)
        self.corpora, self.mesh = corpora, make_mesh(experiment.mesh)
        bound = bind(experiment, self.mesh)
        self.optimizer = make_optimizer(options, schedule, STEPS)
        self.update = jit_update(make_update(bound.loss, self.optimizer, seed=0), self.mesh)
        self.evaluator = Evaluator(bound, experiment, self.mesh)
        self.state = None

    def start(self, seed: int) -> None:
        self.state = initial_state(Decoder(self.experiment.model).start, self.optimizer, self.mesh, seed, ema=False)
        self.batches = dataset_of(dataclasses.replace(self.experiment, seed=seed)).batches(self.corpora)

    def train(self, steps: int) -> float:
        """Milliseconds a step."""
        size, first = self.experiment.batch_size, int(self.state.cursor)
        batches = [
            put_batch(self.mesh, lambda start, rows, at=first + number * size: self.batches.batch(at + start, rows), size)
            for number in range(steps)
        ]
        began, before = time.perf_counter(), None
        for batch in batches:
            self.state, metrics = self.update(self.state, None, batch)
            jax.block_until_ready(before)  # one step late, as the loop does: a CPU's devices lose each other in a long queue of steps
            before = metrics
        jax.block_until_ready(self.state)
        return 1000 * (time.perf_counter() - began) / steps

    def loss(self) -> float:
        return dataset_of(self.experiment).evaluate(self.evaluator, self.state.averaged, self.corpora)["loss"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", help="tiny Shakespeare as one text file")
    parser.add_argument("folder", type=Path, help="where the corpus and the results go")
    options = parser.parse_args()
    start_jax()
    corpus = str(options.folder / "corpus")
    prepare_text(PrepareText(output=corpus, input=(options.text,), tokenizer="char", validation=0.1))
    config = str(Path(__file__).parent.parent / "configs" / "shakespeare.py") + ":best"
    experiment = dataclasses.replace(load_config(config), steps=STEPS, data=TextData(shards=(corpus,)))
    divide_cpu(experiment)
    corpora, results = [Corpus(corpus)], options.folder / "results.jsonl"
    losses: dict[tuple, float] = {}
    if results.exists():
        losses = {(row["optimizer"], row["seed"]): row["loss"] for row in map(json.loads, results.read_text().splitlines())}
    benches: dict[Optimizer, Bench] = {}

    def bench(kind: Optimizer) -> Bench:
        if kind not in benches:
            benches[kind] = Bench(experiment, kind, corpora)
        return benches[kind]

    def measure(kind: Optimizer, seed: int) -> float:
        if (str(kind), seed) not in losses:
            bench(kind).start(seed)
            bench(kind).train(STEPS)
            losses[str(kind), seed] = bench(kind).loss()
            with results.open("a") as file:
                file.write(json.dumps({"optimizer": str(kind), "seed": seed, "loss": losses[str(kind), seed]}) + "\n")
            print(f"{losses[str(kind), seed]:.4f} {kind}, seed {seed}", flush=True)
        return losses[str(kind), seed]

    best = [min(kinds, key=lambda kind: measure(kind, SEARCH_SEED)) for kinds in WITH_RATES]
    found = {kind: [measure(kind, seed) for seed in SEEDS] for kind in best}
    milliseconds: dict[Optimizer, list[float]] = {kind: [] for kind in best}
    for number in range(ROUNDS + 1):
        for kind in best:
            if number == 0:
                bench(kind).start(0)
            spent = bench(kind).train(STEPS_A_ROUND)
            if number:  # the first round compiles
                milliseconds[kind].append(spent)
    print("| optimizer | rate | loss, mean of three seeds | lowest, highest | ms a step, median |\n|---|---|---|---|---|")
    for kind in sorted(best, key=lambda kind: statistics.mean(found[kind])):
        mean, low, high = statistics.mean(found[kind]), min(found[kind]), max(found[kind])
        spent = statistics.median(milliseconds[kind])
        print(f"| {type(kind).__name__} | {kind.learning_rate:g} | {mean:.3f} | {low:.3f}, {high:.3f} | {spent:.0f} |")


if __name__ == "__main__":
    main()
