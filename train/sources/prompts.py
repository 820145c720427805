"""Prompts that a policy answers."""

import dataclasses

from data.tokenizer import Tokenizer
from train.experiment import Experiment
from train.kinds import Dataset
from train.rl.options import Prompts
from train.sources.environments import elsewhere, open_environments, paths_of
from train.sources.examples import Examples


class PromptDataset(Dataset):
    """Environments that ask and score; their rows are made by train/rl/policy/questions.py."""

    options: Prompts
    experiment: Experiment

    def paths(self) -> tuple[str, ...]:
        return paths_of(self.options)

    def elsewhere(self, paths: tuple[str, ...]) -> Prompts:
        return dataclasses.replace(self.options, environments=elsewhere(self.options, paths))

    def open(self, tokenizer: Tokenizer | None = None) -> list[Examples]:
        return open_environments(self.experiment, self.options.environments, tokenizer, self.chat)
