"""`omnia label`: responses of a policy, compared by what an environment says they are worth."""

import contextlib
import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import numpy as np
import tyro

from data.errors import UserError
from data.files import json_files
from train.experiment import Experiment
from train.rl.environments.environment import Prompt
from train.sources.records import messages_of
from train.verbs.arguments import check_seed, parse, start_jax


@dataclasses.dataclass(frozen=True)
class Label:
    """Sample responses of a run's policy to prompts of its environments, and label the best: data for a reward model or DPO.

    Without noise, responses that tie with the best one are left out, because their order means nothing, and so are prompts without a
    worse response.
    """

    run_dir: tyro.conf.Positional[str]
    """Folder of the run; its data names the environments."""
    output: str
    """JSONL file to write: prompt (a text, or the turns of a conversation), responses, scores, best, and noise if above 0."""
    prompts: int = 1024
    """Number of prompts."""
    samples: int = 4
    """Responses per prompt, at least 2."""
    prompt_tokens: int = 64
    """Maximum length of a prompt, in tokens."""
    response_tokens: int = 64
    """Maximum length of a response, in tokens."""
    temperature: float = 1.0
    """Divides the logits; above 0."""
    noise: float = 0.0
    """Temperature of the labels: the best response is sampled in proportion to exp(score / noise), like human labels. 0: the highest
    score."""
    batch_size: int = 256
    """Responses sampled at once."""
    seed: int = 0
    """Seed of prompts, responses and labels."""


def label(arguments: list[str]) -> None:
    options = parse(Label, "label", arguments)
    check_seed("label", options.seed)
    _check(options)
    start_jax()
    from rich.progress import track

    from train.checkpoints.checkpointer import load_parameters
    from train.devices.mesh import inference_mesh, row_shards
    from train.generation.text import decoder_of
    from train.rl.policy.questions import Questions
    from train.rl.policy.sampler import ResponseSampler
    from train.runs.directory import open_run

    run = open_run(options.run_dir)
    experiment = _drawing_experiment(run.experiment, options)
    questions, mesh = Questions(experiment, run.corpora()), inference_mesh(run.experiment.mesh)
    for line in questions.check(("train",)):
        print(line)
    params, step = load_parameters(run, mesh)
    draw, shards = ResponseSampler(experiment, questions, decoder_of(run), mesh), row_shards(mesh)
    size = max(1, options.batch_size // options.samples // shards) * shards
    rng, written = np.random.default_rng(options.seed), 0
    with whole_or_nothing(Path(options.output)) as file:
        for first in track(range(0, options.prompts, size), "sampling and scoring"):
            taken = questions.take(first, size)
            found = draw(params, taken)
            for place, question in enumerate(taken[: options.prompts - first]):
                span = slice(place * options.samples, (place + 1) * options.samples)
                if found.kept[span].all() and (
                    record := _comparison(question.prompt, found.texts[span], found.totals[span], options.noise, rng)
                ):
                    file.write(json_files.dumps(record) + "\n")
                    written += 1
        if not written:
            raise UserError(
                "no prompt fits its room with responses that differ in worth", "Give more room with --prompt-tokens, or more --samples."
            )
    print(f"{written} comparisons among {options.samples} responses of step {step} are in {options.output}")
    counts = {"had no room (--prompt-tokens)": len(questions.unusable), "responses got rewards that are no numbers": questions.unscored}
    if any(counts.values()):
        print("left out: " + ", ".join(f"{count} {what}" for what, count in counts.items() if count))


def _drawing_experiment(trained: Experiment, options: Label) -> Experiment:
    """The experiment that draws responses of the policy as `options` say. UserError where the run has no prompts, or no room for them."""
    from train.rl.options import Demonstrations, Prompts, ReinforcePlusPlus, turns_of

    data = trained.data
    if not isinstance(data, Demonstrations | Prompts):
        raise UserError(f"{options.run_dir}: its data has no environments", "Give a run on Demonstrations or Prompts.")
    if turns_of(data.environments) > 1:
        raise UserError(f"{options.run_dir}: an environment answers, and a comparison is of single responses", "Give another run.")
    room = options.prompt_tokens + options.response_tokens
    if room > trained.model.context_length:
        raise UserError(f"{room} tokens do not fit the context of {trained.model.context_length}", "Lower --response-tokens.")
    return dataclasses.replace(
        trained,
        data=Prompts(environments=data.environments, weights=data.weights, prompt_tokens=options.prompt_tokens, max_unusable=10**9),
        objective=ReinforcePlusPlus(
            group_size=options.samples, response_tokens=options.response_tokens, temperature=options.temperature, kl_coefficient=0.0
        ),
        seed=options.seed,
    )


def _comparison(prompt: Prompt, responses: list[str], totals: np.ndarray, noise: float, rng: np.random.Generator) -> dict | None:
    """The record of a prompt; Without noise, those that equal the best are left out; None where no other is left."""
    best, worth = choose(totals, noise, rng), totals.tolist()
    if not noise:
        told = [k for k in range(len(responses)) if k == best or worth[k] < worth[best]]
        best, responses, worth = told.index(best), [responses[k] for k in told], [worth[k] for k in told]
    return record_of(prompt, responses, worth, best, noise) if len(responses) >= 2 else None


def _check(options: Label) -> None:
    """UserError for what can be told before anything is loaded."""
    at_least = {"prompts": 1, "samples": 2, "prompt_tokens": 1, "response_tokens": 1, "batch_size": 1, "seed": 0}
    for name, low in at_least.items():
        if not low <= getattr(options, name) < 2**31:
            raise UserError(f"omnia label: --{name.replace('_', '-')} is {getattr(options, name)}", f"Give {low} or more, below 2^31.")
    if options.temperature <= 0 or options.noise < 0:
        raise UserError(
            f"omnia label: --temperature is {options.temperature}, --noise {options.noise}",
            "Give finite numbers, the temperature above 0 and noise 0 or more.",
        )
    output = Path(options.output)
    if output.exists():
        raise UserError(f"{output}: exists", "Choose another --output, or remove it.")
    if not output.parent.is_dir():
        raise UserError(f"{output.parent}: no such folder", "Make it, or choose another --output.")


@contextlib.contextmanager
def whole_or_nothing(path: Path) -> Iterator[TextIO]:
    """A text file to write, which gets its name when it is complete. What stops that leaves nothing behind."""
    partial = path.with_name(path.name + ".partial")
    try:
        with partial.open("w", encoding="utf-8") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError as error:
        raise UserError(f"{partial}: {error.strerror or error}", "Make room there, or choose another --output.") from None
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


def record_of(prompt: Prompt, responses: list[str], scores: list[float], best: int, noise: float) -> dict:
    """What `read_comparisons` reads the same comparison from. noise: above 0 where the best is not the one with the highest score."""
    asked = messages_of(prompt.messages) if prompt.messages else prompt.text
    record = {"prompt": asked, "responses": responses, "scores": scores, "best": best}
    return record | ({"noise": noise} if noise else {})


def choose(scores, noise: float, rng: np.random.Generator) -> int:
    """The response that a judge names as best: the one with the highest score, or by Luce's choice rule with `noise` as its temperature."""
    if not noise:
        return int(np.argmax(scores))
    return int(np.argmax(np.asarray(scores) / noise + rng.gumbel(size=len(scores))))
