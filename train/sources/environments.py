"""Environments as the sources of a run: shared by prompts and demonstrations."""

import dataclasses
from typing import Any

from data.errors import UserError
from data.tokenizer import Tokenizer, character_tokenizer, load_tokenizer
from train.experiment import Experiment
from train.generation.chat import Chat
from train.rl.environments.environment import Environment
from train.rl.options import Demonstrations, Prompts
from train.sources.examples import Examples


def paths_of(data: Prompts | Demonstrations) -> tuple[str, ...]:
    """The files of each environment, or its name."""
    return tuple(", ".join(environment.files) or type(environment).__name__ for environment in data.environments)


def elsewhere(data: Prompts | Demonstrations, paths: tuple[str, ...]) -> tuple[Environment, ...]:
    """The environments, those that read files of prompts reading others."""
    environments: list[Any] = list(data.environments)
    of_files = [number for number, one in enumerate(environments) if hasattr(one, "validation_path")]
    if not of_files:
        raise UserError(f"data: {type(data).__name__} reads no files that others could replace", "Leave --shards out.")
    if len(of_files) != len(paths):
        raise UserError(f"data: {len(of_files)} environments read files, and {len(paths)} are given", "Give one file for each.")
    for number, path in zip(of_files, paths, strict=True):
        environments[number] = dataclasses.replace(environments[number], path=path, validation_path=path)
    return tuple(environments)


def open_environments(
    experiment: Experiment, environments: tuple[Environment, ...], tokenizer: Tokenizer | None, chat: Chat
) -> list[Examples]:
    """With the tokenizer given, that of the run it starts from, or one of their own characters. chat: of the run."""
    if tokenizer is None and experiment.start:
        tokenizer = load_tokenizer(experiment.start)
    if tokenizer is None:
        tokenizer = character_tokenizer("".join(environment.alphabet for environment in environments))
    return [Examples(environment, tokenizer, chat=chat) for environment in environments]
