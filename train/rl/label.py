"""`omnia label`: responses of a policy, compared by what an environment says they are worth."""

import dataclasses
import json
import os
from pathlib import Path

import numpy as np
import tyro

from data.errors import UserError
from train.cli import parse, start_jax


@dataclasses.dataclass(frozen=True)
class Label:
    """Draw responses of a run's policy to prompts of its environments, and write down which is best: for a reward model, or DPO.

    Without noise, responses as good as the best one are left out, since their order says nothing, and so are prompts without worse ones.
    """

    run_dir: tyro.conf.Positional[str]
    """Folder of the run; its data names the environments."""
    output: str
    """JSONL file to write: prompt, responses, scores, best."""
    prompts: int = 1024
    """Prompts to draw responses to."""
    samples: int = 4
    """Responses to each, at least 2."""
    prompt_tokens: int = 64
    """Room for a prompt."""
    response_tokens: int = 64
    """Room for a response."""
    temperature: float = 1.0
    """Divides the logits; above 0."""
    noise: float = 0.0
    """Labels are drawn with probabilities proportional to exp(score / noise), as people's are. 0: the highest score."""
    batch_size: int = 256
    """Responses drawn at once."""
    seed: int = 0
    """Decides prompts, responses and labels."""


def label(arguments: list[str]) -> None:
    options = parse(Label, "label", arguments)
    if min(options.prompts, options.samples - 1, options.batch_size) < 1 or not options.temperature > 0 or options.noise < 0:
        raise UserError("omnia label: --prompts, --batch-size and --temperature must be positive, --samples 2 or more, --noise 0 or more")
    if os.path.exists(options.output):
        raise UserError(f"{options.output}: exists", "Choose another --output, or remove it.")
    start_jax()
    import jax
    from rich.progress import track

    from model.generate import Sampling
    from model.transformer import Decoder
    from train.checkpoint import load_parameters
    from train.mesh import inference_mesh, put_batch, row_shards
    from train.rl.experiment import Demonstrations, Prompts
    from train.rl.questions import Questions
    from train.rl.rollout import rollout, row_keys
    from train.runs import open_run
    from train.state import Purpose, random_key
    from train.step import compiler_options, on_mesh

    run = open_run(options.run_dir)
    data = run.experiment.data
    if not isinstance(data, Demonstrations | Prompts):
        raise UserError(f"{options.run_dir}: its data has no environments", "Give a run on Demonstrations or Prompts.")
    room = options.prompt_tokens + options.response_tokens
    if room > run.experiment.model.context_length:
        raise UserError(f"{room} tokens do not fit the context of {run.experiment.model.context_length}", "Lower --response-tokens.")
    asked = Prompts(environments=data.environments, weights=data.weights, prompt_tokens=options.prompt_tokens, max_unusable=10**9)
    questions = Questions(dataclasses.replace(run.experiment, data=asked, seed=options.seed), run.corpora())
    mesh = inference_mesh(run.experiment.mesh)
    params, step = load_parameters(run, mesh)
    model, sampling = Decoder(run.experiment.model), Sampling(temperature=options.temperature, stop_ids=(questions.end,))

    def draw(params, prompts_BP, lengths_B, rows_B):
        keys_B = row_keys(random_key(options.seed, 0, Purpose.ROLLOUT), rows_B, options.samples)
        return rollout(model, params, prompts_BP, lengths_B, keys_B, sampling, room=options.response_tokens, samples=options.samples)

    call = on_mesh(jax.jit(draw, compiler_options=compiler_options(mesh.devices.flat[0].platform)), mesh)
    shards = row_shards(mesh)
    size = max(1, options.batch_size // options.samples // shards) * shards
    rng, written = np.random.default_rng(options.seed), 0
    partial = Path(options.output + ".partial")
    with partial.open("w", encoding="utf-8") as file:
        for first in track(range(0, options.prompts, size), "drawing and judging"):
            taken = questions.take(first, size)
            padded, lengths = questions.pad(taken)
            rows = np.array([question.row for question in taken], np.int32)
            arrays = (padded, lengths, rows)
            drawn = call(
                params, *put_batch(mesh, lambda first, count, arrays=arrays: tuple(x[first : first + count] for x in arrays), size)
            )
            each = [question for question in taken for _ in range(options.samples)]
            ids, mask = np.asarray(drawn.responses_BR), np.asarray(drawn.mask_BR)
            texts = questions.texts(each, ids, mask)
            scores = questions.scores(each, texts, ids, mask)
            scores = scores if scores.ndim == 1 else scores.sum(1)
            for place, question in enumerate(taken[: options.prompts - first]):
                span = slice(place * options.samples, (place + 1) * options.samples)
                if question.environment < 0 or not np.isfinite(scores[span]).all():
                    continue
                best = choose(scores[span], options.noise, rng)
                responses, worth = texts[span], scores[span].tolist()
                if not options.noise:
                    told = [k for k in range(options.samples) if k == best or worth[k] < worth[best]]
                    best, responses, worth = told.index(best), [responses[k] for k in told], [worth[k] for k in told]
                if len(responses) < 2:
                    continue
                record = {"prompt": question.prompt.text, "responses": responses, "scores": worth, "best": best}
                file.write(json.dumps(record, ensure_ascii=False) + "\n")
                written += 1
    if not written:
        partial.unlink()
        raise UserError(
            "no prompt fits its room with responses that differ in worth", "Give more room with --prompt-tokens, or more --samples."
        )
    os.replace(partial, options.output)
    print(f"{written} comparisons among {options.samples} responses of step {step} are in {options.output}")


def choose(scores, noise: float, rng: np.random.Generator) -> int:
    """The response that a judge names as best: the one with the highest score, or by Luce's choice rule with `noise` as its temperature."""
    if not noise:
        return int(np.argmax(scores))
    return int(np.argmax(np.asarray(scores) / noise + rng.gumbel(size=len(scores))))
