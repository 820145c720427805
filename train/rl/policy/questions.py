"""The prompts of a run, by row number, and the scores that their environments give to responses."""

import dataclasses
from collections.abc import Sequence

import jax
import numpy as np

from data.errors import UserError
from data.rows.mixture import Mixture, counts_of_weights
from train.experiment import Experiment
from train.rl.environments.environment import Environment, Prompt, blaming, check_scores
from train.rl.options import PolicyGradient, Prompts
from train.rl.rewards.scoring import load_reward_models
from train.sources.encoding import check_texts
from train.sources.examples import LARGE, evenly

MOST_ENCODED = 4096
"""Prompts of a split whose tokens are counted before a run, of those that may be too long."""


@dataclasses.dataclass(frozen=True)
class Question:
    """A prompt with its tokens and the environment that scores the response."""

    row: int
    environment: int
    prompt: Prompt
    ids: list[int]


class Questions:
    """The prompts of a run by the number of a row, a pure function of (seed, row).

    One longer than data.prompt_tokens leaves an empty place: a prompt of the start token alone, whose responses are not learned from.
    unusable: rows of such prompts. unscored: how many responses got a reward that is not finite.
    """

    def __init__(self, experiment: Experiment, sources: list):
        assert isinstance(experiment.data, Prompts)
        self._data, self._seed = experiment.data, experiment.seed
        self.environments: list[Environment] = [source.source for source in sources]
        self.names = [source.name for source in sources]
        self.tokenizer, self.transcriber = sources[0].tokenizer(), sources[0].transcriber
        for environment in self.environments:
            load_reward_models(environment, self.tokenizer)
        self.end = self.tokenizer.specials["document_end"]
        self._cut = self._token_to_cut_at(experiment.objective) if isinstance(experiment.objective, PolicyGradient) else None
        self._mixture = Mixture(counts_of_weights(self._data.weights or (1.0,) * len(self.environments)))
        self.unusable: set[int] = set()
        self.unscored = 0
        samples = getattr(experiment.objective, "group_size", 1)
        rows = {"train": experiment.steps * experiment.batch_size // samples, "validation": self._data.validation}
        self._rows = {split: count * self._mixture.counts / len(self._mixture.table) for split, count in rows.items()}

    def check(self, splits: Sequence[str] = ("train", "validation")) -> list[str]:
        """Warnings about the prompts before a run. UserError for those that would stop it, or teach it nothing."""
        said: list[str] = []
        for number, (environment, name) in enumerate(zip(self.environments, self.names, strict=True)):
            for split in splits:
                with blaming(name, f"prompts for {split}"):
                    prompts = environment.examined(self._seed if split == "train" else 0, split)
                    check_texts(self.tokenizer, environment.texts(prompts))
                    environment.check(prompts)
                    self.transcriber.prompt(prompts[0])
                said += self._check_lengths(number, split, prompts)
                self._try(number, prompts[0])
            said += environment.remarks()
        return said

    def _check_lengths(self, number: int, split: str, prompts: Sequence[Prompt]) -> list[str]:
        """Whether the prompts fit data.prompt_tokens, as far as data.max_unusable asks for it."""
        limit, name = self._data.prompt_tokens, f"{self.names[number]}: prompts for {split}"
        # No text has more tokens than bytes; a turn has two besides, and a prompt two. A template may add any number.
        suspects = [
            prompt for prompt in prompts if self.transcriber.templated or 2 + sum(2 + len(text.encode()) for text in prompt.texts) > limit
        ]
        examined = evenly(suspects, MOST_ENCODED)
        lengths = [len(self.transcriber.prompt(prompt)) for prompt in examined]
        share = float(np.mean([length > limit for length in lengths])) * len(suspects) / len(prompts) if examined else 0.0
        if share == 1.0:
            raise UserError(
                f"{name}: none of {len(prompts)} fits data.prompt_tokens {limit}: the shortest has {min(lengths)}",
                "Raise --data.prompt-tokens.",
            )
        expected = share * self._rows[split][number]
        if expected > self._data.max_unusable:
            long = next(place for place, length in enumerate(lengths) if length > limit)
            raise UserError(
                f"{examined[long].name}: has {lengths[long]} tokens, and data.prompt_tokens is {limit}; about "
                f"{max(1, round(expected))} prompts of this run are too long",
                "Raise --data.prompt-tokens, or skip such prompts with --data.max-unusable N.",
            )
        return [f"{name}: about {share:.0%} have more than data.prompt_tokens {limit}, and are left out"] if share >= LARGE else []

    def _try(self, number: int, prompt: Prompt) -> None:
        """UserError where an environment cannot score an empty response: a policy may give one at any time."""
        question, ids = Question(0, number, prompt, [self.end]), np.full((1, 1), self.end, np.int32)
        self.scores([question], [""], ids, np.ones((1, 1), np.float32))
        self.gold([question], [""], ids, np.ones((1, 1), np.float32))

    def take(self, first: int, count: int, split: str = "train") -> list[Question]:
        """Rows [first, first + count)."""
        which, local = self._mixture(np.arange(first, first + count))
        found = []
        for row, number, index in zip(range(first, first + count), which.tolist(), local.tolist(), strict=True):
            with blaming(self.names[number], f"row {row}"):
                prompt = self.environments[number].prompt(self._seed if split == "train" else 0, index, split)
                ids = self.transcriber.prompt(prompt)
            if len(ids) > self._data.prompt_tokens:
                self.unusable.add(row)
                if len(self.unusable) > self._data.max_unusable:
                    raise UserError(
                        f"prompt {row} has {len(ids)} tokens, and data.prompt_tokens is {self._data.prompt_tokens}: {prompt.text[:60]!r}",
                        f"Raise --data.prompt-tokens, or skip such prompts with --data.max-unusable N ({len(self.unusable)} so far).",
                    )
                number, ids = -1, [self.end]
            found.append(Question(row, number, prompt, ids))
        return found

    def pad(self, questions: list[Question]):
        """int32 [B, P], right-aligned, and the lengths [B]."""
        width = self._data.prompt_tokens
        padded = np.zeros((len(questions), width), np.int32)
        for row, question in zip(padded, questions, strict=True):
            row[width - len(question.ids) :] = question.ids
        return padded, np.array([len(question.ids) for question in questions], np.int32)

    def scored_mask(self, responses, mask):
        """mask [B, R] of the response tokens that are scored, and bool [B], which responses have a cut_at token; None without cut_at."""
        return (mask, None) if self._cut is None else cut(responses, mask, *self._cut)

    def _token_to_cut_at(self, o: PolicyGradient) -> tuple[int, int] | None:
        """The token, and the first place where it counts."""
        if not o.cut_at:
            return None
        ids = self.tokenizer.encode(o.cut_at).tolist()
        if len(ids) != 1:
            raise UserError(f"objective.cut_at {o.cut_at!r} is {len(ids)} tokens", "Give the text of one token.")
        return ids[0], o.cut_after

    def texts(self, questions: list[Question], responses, mask) -> list[str]:
        """The responses as text; questions: one for each row."""
        return self.transcriber.responses([question.ids for question in questions], responses, mask)

    def gold(self, questions: list[Question], texts: list[str], responses, mask) -> np.ndarray | None:
        """float32 [B]: the gold scores, where every environment has some apart from its scores; else None."""
        found = np.zeros(len(questions), np.float32)
        for number, rows in self._by_environment(questions):  # those that have none here too, so that every batch is told alike
            worth = self._ask(self.environments[number].gold, number, rows, questions, texts, responses, mask)
            if worth is None:
                return None
            found[rows] = worth if worth.ndim == 1 else worth.sum(1)
        return found

    def scores(self, questions: list[Question], texts: list[str], responses, mask) -> np.ndarray:
        """float32 [B], or [B, R] where an environment gives a reward for each token. UserError for an invalid reward."""
        found = [
            (rows, self._ask(self.environments[number].scores, number, rows, questions, texts, responses, mask))
            for number, rows in self._by_environment(questions)
            if rows
        ]
        by_token = any(worth.ndim == 2 for _, worth in found)
        scores = np.zeros(mask.shape if by_token else len(questions), np.float32)
        for rows, worth in found:
            if by_token and worth.ndim == 1:
                last = np.maximum(mask[rows].sum(1).astype(int) - 1, 0)
                scores[rows, last] = worth
            else:
                scores[rows] = worth
        return scores

    def _by_environment(self, questions: list[Question]) -> list[tuple[int, list[int]]]:
        """The places of the questions of each environment."""
        return [
            (number, [place for place, question in enumerate(questions) if question.environment == number])
            for number in range(len(self.environments))
        ]

    def _ask(self, method, number: int, rows: list[int], questions: list[Question], texts: list[str], responses, mask):
        """An environment's `scores` or `gold` of some rows, checked; None where it has none."""

        def ask(rows: list[int]):
            return method([questions[i].prompt for i in rows], [texts[i] for i in rows], responses[rows], mask[rows])

        name = self.names[number]
        try:
            worth = ask(rows)
        except (UserError, jax.errors.JaxRuntimeError):  # the latter is a device's
            raise
        except Exception as error:  # whatever a user's class can raise: which row it is about is told by asking row by row
            for i in rows if len(rows) > 1 else ():
                with blaming(name, f"row {questions[i].row}, {questions[i].prompt.name}"):
                    ask([i])
            where = "no rows"
            if rows:
                first, last = questions[rows[0]], questions[rows[-1]]
                where = f"row {first.row}, {first.prompt.name}" if len(rows) == 1 else f"rows {first.row} to {last.row}"
            with blaming(name, where):
                raise error
        return None if worth is None and method.__name__ == "gold" else check_scores(worth, len(rows), mask.shape[1], name)


def cut(responses_BR, mask_BR, token: int, after: int):
    """The mask up to each row's first `token` at place `after` or later, itself included; and bool [B], which rows have one."""
    ends_BR = (responses_BR == token) & (mask_BR > 0) & (np.arange(mask_BR.shape[1]) >= after)
    return mask_BR * (np.cumsum(ends_BR, 1) - ends_BR == 0), ends_BR.any(1)
