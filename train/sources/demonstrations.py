"""Demonstrations: prompts with the responses that supervised fine-tuning imitates."""

import dataclasses
from collections.abc import Callable

import numpy as np

from data.errors import UserError
from data.rows.mixture import Mixture, counts_of_weights
from data.text.rows import TextBatch, empty_batch
from data.tokenizer import Tokenizer
from train.experiment import Experiment
from train.kinds import Dataset
from train.rl.environments.environment import Environment, blaming
from train.rl.options import Demonstrations
from train.sources.encoding import check_texts
from train.sources.environments import elsewhere, open_environments, paths_of
from train.sources.examples import SAMPLE, ExampleBatches, Examples, evenly, fill
from train.sources.text import check_samples, continuations


class DemonstrationBatches(ExampleBatches):
    """Rows of demonstrations: TextBatch, weights 1 on the tokens of responses and their ends."""

    def __init__(self, experiment: Experiment, sources: list[Examples], split: str):
        super().__init__(experiment, sources, split)
        assert isinstance(experiment.data, Demonstrations)
        self.data = experiment.data
        self._mixture = Mixture(counts_of_weights(self.data.weights or (1.0,) * len(sources)))
        self.rows_per_epoch = self.data.validation
        if split == "train":
            self._examine(DemonstrationBatches(experiment, sources, "validation"), experiment.evaluation.rows, self._check_source)

    def batch(self, first_row: int, count: int) -> TextBatch:
        numbers = np.arange(first_row, first_row + count)
        batch = empty_batch(numbers, self.length)
        which, local = self._mixture(numbers)
        for place, (number, index) in enumerate(zip(which.tolist(), local.tolist(), strict=True)):
            environment = self.sources[number].source
            seed = self.seed if self.split == "train" else 0
            with blaming(self.sources[number].name, f"row {numbers[place]}"):
                prompt, response = environment.transcript(environment.prompt(seed, index, self.split), seed, index)
            ids, learned = self._transcriber.demonstration(prompt, response, self.data.learn_prompts)
            if not fill(batch, place, ids, learned):
                self.damaged.add(int(numbers[place]))
        return batch

    def _check_source(self, number: int) -> list[str]:
        source, said = self.sources[number], []
        environment = source.source
        assert isinstance(environment, Environment)
        for split, seed in (("train", self.seed), ("validation", 0)):
            shown = []
            with blaming(source.name, f"prompts for {split}"):
                prompts = environment.examined(seed, split)
            for row, prompt in enumerate(prompts):
                with blaming(source.name, prompt.name):
                    shown.append(environment.transcript(prompt, seed, row))
            check_texts(self._tokenizer, ((prompt.name, text) for prompt, response in shown for text in (*prompt.texts, response)))
            if not self.data.learn_prompts and not any(response for _, response in shown):
                raise UserError(f"{source.name}: every response for {split} is empty: there is nothing to learn", "Give responses.")
            lengths = [len(self._transcriber.demonstration(prompt, response)[0]) - 1 for prompt, response in evenly(shown, SAMPLE)]
            said += self._check_lengths(f"{source.name}: examples for {split}", lengths)
        return said + environment.remarks()


class DemonstrationDataset(Dataset):
    """Environments that show how a prompt is answered."""

    options: Demonstrations
    experiment: Experiment
    counted = "examples"

    def paths(self) -> tuple[str, ...]:
        return paths_of(self.options)

    def elsewhere(self, paths: tuple[str, ...]) -> Demonstrations:
        return dataclasses.replace(self.options, environments=elsewhere(self.options, paths))

    def open(self, tokenizer: Tokenizer | None = None) -> list[Examples]:
        return open_environments(self.experiment, self.options.environments, tokenizer, self.chat)

    def batches(self, sources: list, split: str = "train") -> DemonstrationBatches:
        return DemonstrationBatches(self.experiment, sources, split)

    def empty(self, count: int) -> TextBatch:
        return empty_batch(np.arange(count), self.experiment.model.context_length)

    def check(self, sources: list) -> None:
        check_samples(self.experiment, sources)

    def samples(self, run, params, sources: list, said: Callable[[str], None]):
        return continuations(run, params)
