"""Rounds of our own policy steps: responses, rewards, update, as `omnia train` takes them. Started by benchmarks/race.py."""

import dataclasses
import json
import resource
import sys
import tempfile
import time
from pathlib import Path

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from model.config import ModelConfig
from model.decoding.generate import generate
from model.decoding.sampling import Sampling
from model.transformer import DECODER, Decoder
from train.devices.mesh import ROWS, divide_cpu, make_mesh
from train.experiment import AdamW, Checkpoints, Evaluation, Experiment, Samples, Schedule
from train.loop.learner import fresh_state, learner_of
from train.loop.loop import train as run_to_the_end
from train.rl.environments.environment import Environment, Prompt
from train.rl.options import GRPO, PPO, Demonstrations, Prompts
from train.rl.policy.questions import Questions
from train.runs.directory import create_run, open_corpora
from train.runs.resolve import resolve
from train.step.update import compiler_options, on_mesh
from train.verbs.arguments import start_jax


@dataclasses.dataclass(frozen=True)
class Please(Environment):
    """Prompts of one length, and a reward that costs next to nothing: the share of one letter."""

    length: int = 16

    @property
    def alphabet(self):
        return "".join(map(chr, range(256)))

    @property
    def held_out(self):
        return False

    def draw(self, rng):
        return Prompt(f"{rng.randrange(512)} please {'x' * 99}"[: self.length - 1])  # the token of a text's start comes before

    def demonstrate(self, prompt, rng):
        return "".join(rng.choice(self.alphabet) for _ in range(8))

    def score(self, prompt, response):
        return response.count("e") / (1 + len(response))


def main():
    shape = json.loads(sys.argv[1])
    start_jax()
    environment = Please(shape["prompt"])
    model = ModelConfig(
        context_length=shape["prompt"] + shape["new"],
        num_layers=shape["layers"],
        embed_dim=shape["width"],
        num_heads=shape["heads"],
    )
    common = {"batch_size": shape["batch"], "schedule": Schedule(warmup_steps=0), "optimizer": AdamW(learning_rate=1e-3)}
    start = Experiment(
        **common,
        steps=1,
        model=model,
        data=Demonstrations(environments=(environment,), validation=shape["batch"]),
        evaluation=Evaluation(every=0),
        checkpoints=Checkpoints(every=0),
        samples=Samples(tokens=0),
    )
    kinds = {
        "grpo": GRPO(group_size=shape["group"], response_tokens=shape["new"], kl_coefficient=0.05),
        "ppo": PPO(group_size=shape["group"], response_tokens=shape["new"], epochs=1, critic="separate"),
    }
    with tempfile.TemporaryDirectory() as folder:
        divide_cpu(start)
        first = make(Path(folder) / "start", start)
        run_to_the_end(first)
        policy = Experiment(
            **common,
            micro_batches=shape["micro_batches"],
            model=model,
            start=str(first.path),
            data=Prompts(environments=(environment,), prompt_tokens=shape["prompt"]),
            objective=kinds[shape["kind"]],
        )
        run = make(Path(folder) / "policy", policy)
        mesh = make_mesh(policy.mesh)
        learner = learner_of(run, run.corpora(), mesh)
        state = fresh_state(learner, mesh, 0, ema=False)
        learner.begin(0)
        for _ in range(shape["warm"]):
            state, metrics, _ = learner.step(state, next(learner))
        questions, decoder = Questions(run.experiment, run.corpora()), Decoder(run.experiment.model)
        padded, lengths = questions.pad(questions.take(0, shape["batch"] // shape["group"]))
        sampling = Sampling(stop_ids=(questions.end,))

        def draw(params, prompts_BP, lengths_B, keys_B):
            return generate(decoder, params, prompts_BP, lengths_B, keys_B, sampling, max_new_tokens=shape["new"], samples=shape["group"])

        draw = on_mesh(jax.jit(draw, compiler_options=compiler_options("cpu")), mesh)
        spread = NamedSharding(mesh, PartitionSpec(ROWS))
        placed = jax.device_put((padded, lengths, jax.random.split(jax.random.key(0), shape["batch"])), spread)
        jax.block_until_ready(draw({name: state.params[name] for name in DECODER if name in state.params}, *placed))
        print("ready", flush=True)
        for _ in sys.stdin:
            began, parts = time.perf_counter(), {"rollout": 0.0, "reward": 0.0, "update": 0.0}
            tokens = 0.0
            for _ in range(shape["steps"]):
                state, metrics, _ = learner.step(state, next(learner))
                parts = {name: seconds + float(metrics[f"time/{name}"].total) for name, seconds in parts.items()}
                tokens += float(metrics["tokens"].total)
            jax.block_until_ready(state)
            seconds = (time.perf_counter() - began) / shape["steps"]
            params = {name: state.params[name] for name in DECODER if name in state.params}
            began = time.perf_counter()
            ends_B = np.asarray(draw(params, *placed).ends_B)
            plain = float((ends_B - shape["prompt"]).sum() / (time.perf_counter() - began))
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            each = {name: part / shape["steps"] for name, part in parts.items()}
            speed = {"rollout_tokens_per_second": tokens / parts["rollout"], "generate_tokens_per_second": plain}
            print(json.dumps({"seconds": seconds, "peak_mib": peak} | speed | each), flush=True)


def make(path: Path, experiment: Experiment):
    corpora = open_corpora(experiment)
    return create_run(path, resolve(experiment, corpora), corpora)


if __name__ == "__main__":
    main()
