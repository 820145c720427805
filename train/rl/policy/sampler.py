"""Responses of a policy to the prompts of a run, whichever way they are sampled, with what their environments say of them."""

import dataclasses
import time
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils

from data.errors import UserError
from model.decoding.sampling import Sampling
from model.transformer import DECODER, Decoder
from train.devices.mesh import gathered, put_batch
from train.experiment import Experiment
from train.generation.slots import go_on_in_slots, open_slots, rollout_in_slots
from train.rl.environments.environment import Reply, Simulator, blaming
from train.rl.options import PolicyGradient, Prompts, response_length, turns_of
from train.rl.policy.questions import Question, Questions
from train.rl.policy.rollout import Rollout, Talk, as_rollout, go_on, response_key, rollout, row_keys, start_talk
from train.step.state import Purpose, random_key
from train.step.update import compiler_options, on_mesh


class Responses(NamedTuple):
    """B responses. rollout: on the mesh. On the host: texts; scores float32 [B], or [B, R] by token; kept float32 [B], 0 for rows
    that are not learned from, since the prompt is too long or the reward is not finite; seconds of sampling."""

    rollout: Rollout
    texts: list[str]
    scores: np.ndarray
    kept: np.ndarray
    seconds: float

    @property
    def totals(self) -> np.ndarray:
        """The scores of whole responses, [B]."""
        return self.scores if self.scores.ndim == 1 else self.scores.sum(1)


class Conversation:
    """A prompt, what the policy has said to it, and what it was answered."""

    def __init__(self, question: Question, questions: Questions):
        self._question, self._questions, self._transcriber = question, questions, questions.transcriber
        self._environment = questions.environments[question.environment]
        self._ids = list(question.ids)
        self._said: tuple[str, ...] = ()
        self.transcript = ""
        self.over = question.environment < 0

    def hear(self, ids: list[int]) -> Reply:
        """A turn of the policy, and the reply to it: an environment that does not reply scores the first turn, which is the last."""
        text = self._transcriber.read_on(self._ids, ids)
        self._ids += ids
        self._said = (*self._said, text)
        self.transcript += text
        if isinstance(self._environment, Simulator):
            with blaming(type(self._environment).__name__, f"row {self._question.row}, {self._question.prompt.name}"):
                reply = self._environment.reply(self._question.prompt, self._said)
                return dataclasses.replace(reply, reward=float(reply.reward))
        one = np.array([ids], np.int32)
        scores = self._questions.scores([self._question], [text], one, np.ones(one.shape, np.float32))
        return Reply(reward=float(scores.sum()), ends=True)

    def say(self, reply: Reply, ended: bool, reply_tokens: int) -> list[int]:
        """The ids of a reply; ended: whether the policy sampled the end of its turn."""
        ids = self._transcriber.reply(reply, ended)
        if len(ids) > reply_tokens:
            raise UserError(
                f"{type(self._environment).__name__}: a reply has {len(ids)} tokens with its role and end tokens; data.reply_tokens is "
                f"{reply_tokens}: {reply.text[:60]!r}",
                "Raise --data.reply-tokens.",
            )
        self._ids += ids
        self.transcript += f"\n[{reply.role}] {reply.text}\n"
        return ids


class ResponseSampler:
    """Samples responses, and has them scored.

    With environments that answer, a response is a conversation: turns of the policy, each of at most `response_tokens`, with replies
    between them, of at most `reply_tokens`. What was said is kept as the ids that were sampled, and never tokenized again.
    """

    def __init__(self, experiment: Experiment, questions: Questions, model: Decoder, mesh):
        o, data = experiment.objective, experiment.data
        assert isinstance(o, PolicyGradient)
        assert isinstance(data, Prompts)
        self._questions, self._mesh, self._samples, self._slots = questions, mesh, o.group_size, o.slots
        self._learn_behind_cut = o.learn_behind_cut
        self._turns, self._reply_tokens = turns_of(data.environments), data.reply_tokens
        self._response_length = response_length(data, o)
        sampling = Sampling(temperature=o.temperature, stop_ids=questions.transcriber.stop_ids if o.stop else ())

        def keys(rows_B, purpose, samples):
            return row_keys(random_key(experiment.seed, 0, purpose), rows_B, samples)

        def sample(params, prompts_BP, lengths_B, rows_B, *, purpose: Purpose, samples: int):
            keys_B = keys(rows_B, purpose, samples)
            return rollout(model, params, prompts_BP, lengths_B, keys_B, sampling, max_new_tokens=self._response_length, samples=samples)

        def start(params, prompts_BP, lengths_B, rows_B, *, purpose: Purpose, samples: int):
            keys_B, how = (
                keys(rows_B, purpose, samples),
                {"turn": o.response_tokens, "max_new_tokens": self._response_length, "samples": samples},
            )
            return start_talk(model, params, prompts_BP, lengths_B, keys_B, sampling, **how)

        def proceed(params, talk: Talk, replies_BE, lengths_B):
            return go_on(model, params, talk, replies_BE, lengths_B, sampling, turn=o.response_tokens)

        def finish(talk: Talk):
            return as_rollout(talk.state, talk.sampled_BS, talk.stopped_B, self._response_length)

        def open_places(params, prompts_BP, lengths_B, rows_B):
            keys_B = keys(rows_B, Purpose.ROLLOUT, o.group_size)
            return open_slots(
                model, params, prompts_BP, lengths_B, keys_B, sampling, max_new_tokens=self._response_length, samples=o.group_size
            )

        def go_on_in_places(params, state, over_B, places_K, prompts_KP, lengths_K, rows_K, samples_K):
            key = random_key(experiment.seed, 0, Purpose.ROLLOUT)
            keys_K = jax.vmap(lambda row, sample: response_key(key, row, sample))(rows_K, samples_K)
            return go_on_in_slots(model, params, state, over_B, places_K, prompts_KP, lengths_K, keys_K, sampling)

        compiled: dict[str, Any] = {"compiler_options": compiler_options(mesh.devices.flat[0].platform)}
        self._sample = on_mesh(jax.jit(sample, static_argnames=("purpose", "samples"), **compiled), mesh)
        self._start = on_mesh(jax.jit(start, static_argnames=("purpose", "samples"), **compiled), mesh)
        self._proceed = on_mesh(jax.jit(proceed, donate_argnames="talk", **compiled), mesh)
        self._open = on_mesh(jax.jit(open_places, **compiled), mesh)
        self._go_on = on_mesh(jax.jit(go_on_in_places, donate_argnames="state", **compiled), mesh)
        self._finish = on_mesh(jax.jit(finish, **compiled), mesh)

    def __call__(self, params, questions: list[Question], purpose: Purpose = Purpose.ROLLOUT, samples: int = 0) -> Responses:
        """`samples` responses to each question (0: as many as a group has), neighbours."""
        samples = samples or self._samples
        began = time.monotonic()
        padded, lengths = self._questions.pad(questions)
        rows = np.array([question.row for question in questions], np.int32)
        placed = self._place(padded, lengths, rows)
        each = [question for question in questions for _ in range(samples)]
        params = gathered({name: params[name] for name in DECODER if name in params}, self._mesh)  # the critic samples nothing
        if self._turns > 1:
            sampled, texts, scores, seconds = self._converse(self._start(params, *placed, purpose=purpose, samples=samples), params, each)
        else:
            if self._slots and purpose == Purpose.ROLLOUT and len(each) > self._slots:
                sampled = self._sample_in_slots(params, padded, lengths, rows)
            else:
                sampled = self._sample(params, *placed, purpose=purpose, samples=samples)
            responses, mask = self.host(sampled.responses_BR), self.host(sampled.mask_BR)
            seconds = time.monotonic() - began
            mask, ended = self._questions.scored_mask(responses, mask)
            if ended is not None:
                sampled = sampled._replace(stopped_B=self._place(ended)[0])
                if not self._learn_behind_cut:
                    sampled = sampled._replace(mask_BR=self._place(mask)[0])
            texts = self._questions.texts(each, responses, mask)
            scores = self._score(each, texts, responses, mask)
        usable = np.array([question.environment >= 0 for question in each])
        finite = np.isfinite(scores) if scores.ndim == 1 else np.isfinite(scores).all(1)
        self._questions.unscored += int((usable & ~finite).sum())
        kept = (usable & finite).astype(np.float32)
        if samples > 1:  # a group is learned from whole or not at all
            kept = kept.reshape(-1, samples).min(1).repeat(samples)
        return Responses(sampled, texts, np.nan_to_num(scores, posinf=0.0, neginf=0.0), kept, seconds)

    def _sample_in_slots(self, params, padded, lengths, rows) -> Rollout:
        prompts, lengths_N, rows_N = (x.repeat(self._samples, 0) for x in (padded, lengths, rows))

        def begin():
            first = self._slots // self._samples
            return self._open(params, *self._place(padded[:first], lengths[:first], rows[:first]))

        def go_on(state, over_B, places_K, numbers_K):
            of = prompts[numbers_K], lengths_N[numbers_K], rows_N[numbers_K], numbers_K % self._samples
            return self._go_on(params, state, over_B, places_K, *of)

        found = rollout_in_slots(begin, go_on, self.host, prompts, lengths_N, slots=self._slots, max_new_tokens=self._response_length)
        return Rollout(*self._place(*found))

    def _place(self, *arrays: np.ndarray):
        """Rows on the mesh."""
        return put_batch(self._mesh, lambda first, count: tuple(x[first : first + count] for x in arrays), len(arrays[0]))

    def _score(self, questions: list[Question], texts: list[str], responses, mask) -> np.ndarray:
        """Each process scores its share of the rows, and all get all."""
        processes, process = jax.process_count(), jax.process_index()
        if processes == 1:
            return self._questions.scores(questions, texts, responses, mask)
        size = -(-len(questions) // processes)
        mine = slice(process * size, (process + 1) * size)
        own = self._questions.scores(questions[mine], texts[mine], responses[mine], mask[mine])
        wide = np.zeros((size, *own.shape[1:]), np.float32)
        wide[: len(own)] = own
        return np.asarray(multihost_utils.process_allgather(wide, tiled=True))[: len(questions)]

    def _converse(self, talk: Talk, params, questions: list[Question]):
        """All turns after the first; rollout, transcripts, scores [B, R] at the ends of turns, seconds of sampling.

        Replies are pure functions of what was said, so every process makes all of them itself.
        """
        count, prompt = len(questions), talk.state.tokens_BS.shape[1] - self._response_length
        conversations = [Conversation(question, self._questions) for question in questions]
        scores, seconds = np.zeros((count, self._response_length), np.float32), 0.0
        for turn in range(1, self._turns + 1):
            began = time.monotonic()
            tokens, ends, stopped = (self.host(x) for x in (talk.state.tokens_BS, talk.state.ends_B, talk.stopped_B))
            begin = int(talk.begin)
            seconds += time.monotonic() - began
            replies = np.zeros((count, self._reply_tokens), np.int32)
            lengths = np.zeros(count, np.int32)
            for row, conversation in enumerate(conversations):
                if conversation.over:
                    continue
                reply = conversation.hear(tokens[row, begin : ends[row]].tolist())
                scores[row, ends[row] - 1 - prompt] = reply.reward
                if reply.ends or turn == self._turns:
                    conversation.over = True
                    continue
                ids = conversation.say(reply, bool(stopped[row]), self._reply_tokens)
                replies[row, self._reply_tokens - len(ids) :], lengths[row] = ids, len(ids)
            if all(conversation.over for conversation in conversations):
                break
            began = time.monotonic()
            talk = self._proceed(params, talk, *self._place(replies, lengths))
            jax.block_until_ready(talk.begin)
            seconds += time.monotonic() - began
        return self._finish(talk), [conversation.transcript for conversation in conversations], scores, seconds

    def host(self, x) -> np.ndarray:
        """A whole array on the host of every process."""
        return np.asarray(x if jax.process_count() == 1 else multihost_utils.process_allgather(x, tiled=True))
