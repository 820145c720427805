"""A trained reward model as a function of texts."""

import dataclasses
import math
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np

from data.errors import UserError
from data.files import json_files
from data.records.rows import digest_of
from data.tokenizer import Tokenizer
from train.checkpoints.checkpointer import load_parameters
from train.devices.mesh import inference_mesh, put_batch, row_shards
from train.generation.chat import load_chat
from train.kinds import realise
from train.objectives.preference.reward_model import score_texts
from train.rl.options import RewardModelling
from train.rl.rewards.rewards import SCORERS, RewardModel
from train.runs.directory import Run, open_run
from train.sources.encoding import Transcriber
from train.step.update import compiler_options, on_mesh


def reward_models(option) -> Iterator[RewardModel]:
    """Every reward model that an environment, or an option inside it, asks."""
    if isinstance(option, RewardModel):
        yield option
    elif dataclasses.is_dataclass(option):
        for field in dataclasses.fields(option):
            yield from reward_models(getattr(option, field.name))
    elif isinstance(option, tuple):
        for one in option:
            yield from reward_models(one)


_LOADED: dict[str, tuple] = {}
"""What each scorer was made of."""


def load_reward_models(environment, tokenizer: Tokenizer) -> None:
    """Load the newest checkpoint of every reward model that an environment asks. tokenizer: of the policy, all of whose texts each has to
    be able to read."""
    for model in reward_models(environment):
        run = open_reward_model(model.run)
        _check_reads(run, tokenizer)
        made_of = (*map(digest_of, model.files), normalisation(run.path))
        if _LOADED.get(model.run) != made_of:
            SCORERS[model.run], _LOADED[model.run] = load_scorer(model.run), made_of


def _check_reads(run: Run, tokenizer: Tokenizer) -> None:
    """UserError where a policy may write what the tokenizer of a reward model has no token for."""
    own = run.tokenizer()
    if own.digest != tokenizer.digest:
        try:
            own.encode(tokenizer.decode(np.arange(tokenizer.base_size)))
        except UserError as error:
            what = str(error).partition("\n")[0]
            raise UserError(
                f"{run.path}: the reward model cannot read all that the policy may write: {what}",
                "Give one with a tokenizer that reads any text.",
            ) from None


def open_reward_model(run_dir: str) -> Run:
    if not run_dir:
        raise UserError("a reward model needs a run", "Give one in the config file: RewardModel(run=DIR).")
    run = open_run(run_dir, said=lambda line: None)
    if not isinstance(run.experiment.objective, RewardModelling):
        raise UserError(f"{run_dir}: not a reward model", "Give the run of a RewardModelling experiment.")
    return run


def load_scorer(run_dir: str):
    """score(prompts, responses) -> float32 [B], by the newest checkpoint of a run, normalised as its last evaluation says."""
    run = open_reward_model(run_dir)
    mesh = inference_mesh(run.experiment.mesh)
    params, _ = load_parameters(run, mesh)
    transcriber, model = Transcriber(run.tokenizer(), load_chat(run.path)), realise(run.experiment.model)
    length = run.experiment.model.context_length
    call = jax.jit(
        lambda params, tokens, valid: score_texts(model, params, tokens, valid),
        compiler_options=compiler_options(mesh.devices.flat[0].platform),
    )
    score = on_mesh(call, mesh)
    mean, deviation = normalisation(run.path)

    def scores(prompts, responses) -> np.ndarray:
        """A text that does not fit the model's context loses its beginning."""
        if not prompts:
            return np.zeros(0, np.float32)
        rows = [transcriber.demonstration(prompt, response)[0][-length:] for prompt, response in zip(prompts, responses, strict=True)]
        count = -(-len(rows) // row_shards(mesh)) * row_shards(mesh)
        width = min(length, -(-max(map(len, rows)) // 32) * 32)  # few widths, so few programs
        tokens, valid = np.zeros((count, width), np.int32), np.zeros((count, width), np.int32)
        valid[:, 0] = 1
        for place, row in enumerate(rows):
            tokens[place, : len(row)], valid[place, : len(row)] = row, 1
        placed = put_batch(mesh, lambda first, rows: (tokens[first : first + rows], valid[first : first + rows]), count)
        found = np.asarray(score(params, *placed))[: len(rows)]
        return ((found - mean) / deviation).astype(np.float32)

    return scores


def normalisation(path: Path) -> tuple[float, float]:
    """Mean and standard deviation of the scores of the validation responses; 0 and 1 where no evaluation is complete."""
    try:
        found = json_files.read(path / "summary.json", "Train it to its end.")["validation"]
        mean, square = float(found["score_mean"]), float(found["score_square"])
    except (FileNotFoundError, KeyError):
        return 0.0, 1.0
    if not math.isfinite(mean) or not math.isfinite(square):
        return 0.0, 1.0
    return mean, max(square - mean**2, 1e-6) ** 0.5
