"""The prompts of a run, by the number of a row, and what their environments say of responses."""

import dataclasses

import numpy as np

from data.errors import UserError
from data.mixture import Mixture, counts_of_weights
from train.experiment import Experiment
from train.rl.environments import Prompt
from train.rl.examples import decode_responses, encode_prompt
from train.rl.experiment import PolicyGradient, Prompts
from train.rl.scoring import load_reward_models


@dataclasses.dataclass(frozen=True)
class Question:
    """A prompt with its tokens and the environment that judges the response."""

    row: int
    environment: int
    prompt: Prompt
    ids: list[int]


class Questions:
    """The prompts of a run by the number of a row, a pure function of (seed, row).

    One longer than its room leaves an empty place: a prompt of the start token alone, whose responses are not learned from.
    """

    def __init__(self, experiment: Experiment, sources: list):
        assert isinstance(experiment.data, Prompts)
        self._data, self._seed = experiment.data, experiment.seed
        self.environments = [source.source for source in sources]
        for environment in self.environments:
            load_reward_models(environment)
        self.tokenizer = sources[0].tokenizer()
        self.end = self.tokenizer.specials["document_end"]
        self._cut = self._token_to_cut_at(experiment.objective) if isinstance(experiment.objective, PolicyGradient) else None
        self._mixture = Mixture(counts_of_weights(self._data.weights or (1.0,) * len(self.environments)))
        self.unusable: set[int] = set()

    def take(self, first: int, count: int, split: str = "train") -> list[Question]:
        """Rows [first, first + count)."""
        which, local = self._mixture(np.arange(first, first + count))
        found = []
        for row, number, index in zip(range(first, first + count), which.tolist(), local.tolist(), strict=True):
            prompt = self.environments[number].prompt(self._seed if split == "train" else 0, index, split)
            ids = encode_prompt(prompt, self.tokenizer)
            if len(ids) > self._data.prompt_tokens:
                self.unusable.add(row)
                if len(self.unusable) > self._data.max_unusable:
                    raise UserError(
                        f"prompt {row} has {len(ids)} tokens, and data.prompt_tokens is {self._data.prompt_tokens}: {prompt.text[:60]!r}",
                        f"Give more room, or go on without such prompts: --data.max-unusable N ({len(self.unusable)} so far).",
                    )
                number, ids = -1, [self.end]
            found.append(Question(row, number, prompt, ids))
        return found

    def pad(self, questions: list[Question]):
        """int32 [B, P], right-aligned, and the lengths [B]."""
        room = self._data.prompt_tokens
        padded = np.zeros((len(questions), room), np.int32)
        for row, question in zip(padded, questions, strict=True):
            row[room - len(question.ids) :] = question.ids
        return padded, np.array([len(question.ids) for question in questions], np.int32)

    def judged(self, responses, mask):
        """mask [B, R] of what is judged of responses, and bool [B], which of them have an end that cuts them; None where nothing does."""
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
        return decode_responses(self.tokenizer, [question.ids for question in questions], responses, mask)

    def gold(self, questions: list[Question], texts: list[str], responses, mask) -> np.ndarray | None:
        """float32 [B]: what responses are really worth, where every environment knows it apart from its scores; else None."""
        found = np.zeros(len(questions), np.float32)
        for number, environment in enumerate(self.environments):
            rows = [place for place, question in enumerate(questions) if question.environment == number]
            worth = environment.gold([questions[i].prompt for i in rows], [texts[i] for i in rows], responses[rows], mask[rows])
            if worth is None:
                return None
            found[rows] = worth
        return found

    def scores(self, questions: list[Question], texts: list[str], responses, mask) -> np.ndarray:
        """float32 [B], or [B, R] where an environment gives a reward for each token. UserError for what is no reward."""
        found, by_token = {}, False
        for number, environment in enumerate(self.environments):
            rows = [place for place, question in enumerate(questions) if question.environment == number]
            if not rows:
                continue
            scores = environment.scores([questions[i].prompt for i in rows], [texts[i] for i in rows], responses[rows], mask[rows])
            found[number] = (rows, check_scores(scores, len(rows), mask.shape[1], type(environment).__name__))
            by_token |= found[number][1].ndim == 2
        scores = np.zeros(mask.shape if by_token else len(questions), np.float32)
        for rows, part in found.values():
            if by_token and part.ndim == 1:
                last = np.maximum(mask[rows].sum(1).astype(int) - 1, 0)
                scores[rows, last] = part
            else:
                scores[rows] = part
        return scores


def cut(responses_BR, mask_BR, token: int, after: int):
    """The mask up to each row's first `token` at place `after` or later, itself included; and bool [B], which rows have one."""
    ends_BR = (responses_BR == token) & (mask_BR > 0) & (np.arange(mask_BR.shape[1]) >= after)
    return mask_BR * (np.cumsum(ends_BR, 1) - ends_BR == 0), ends_BR.any(1)


def check_scores(scores, rows: int, room: int, name: str) -> np.ndarray:
    """float32 scores [rows] or [rows, room]; NaN stays, and is left out of the step. UserError for another shape, or for integers: whoever
    counts in integers truncates what is not whole."""
    scores = np.asarray(scores)
    if scores.shape not in ((rows,), (rows, room)):
        raise UserError(
            f"{name}: gave scores of shape {scores.shape} for {rows} responses", f"Return [{rows}], or [{rows}, {room}] by token."
        )
    if not np.issubdtype(scores.dtype, np.floating):
        raise UserError(f"{name}: gave scores of type {scores.dtype}", "Return floats.")
    return scores.astype(np.float32)
