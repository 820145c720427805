"""Learning from the reward of a policy's own responses: one step samples responses, evaluates them, and learns from them.

Each of the three is one jitted call; what a response is worth is computed between the first two, on the host, from its text.
"""

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from data.errors import UserError
from data.loading.prefetch import Prefetch, prefetch
from train.adapters.options import Tuning
from train.adapters.training import begun_on, joined, method_of
from train.devices.mesh import ROWS, check_batch, row_shards
from train.experiment import Experiment
from train.kinds import Learner, Sample, Section, realise
from train.objectives.bind import bind, bind_trained, flops_of, frozen_shapes, state_of, update_of
from train.objectives.terms import Mean
from train.optimizers.build import make_schedule, optimizer_of
from train.rl.options import PolicyGradient, Prompts, reads_reference, response_length, turns_of
from train.rl.policy.advantages import adapted_kl_coefficient, informative_groups, running_scale
from train.rl.policy.experience import TokenEstimates, evaluate_rollout, make_experience, scores_by_token
from train.rl.policy.policy_gradient import critic_of
from train.rl.policy.questions import Question, Questions
from train.rl.policy.reference import Reference
from train.rl.policy.rollout import Rollout
from train.rl.policy.sampler import ResponseSampler
from train.runs.directory import Run
from train.runs.start import adopt, start_parameters
from train.step.epochs import learn_in_epochs
from train.step.state import Purpose, State, random_key
from train.step.update import compiler_options, on_mesh

CHECK_EVERY = 20
"""Steps between two comparisons of the sampler's log-probabilities with those of the training pass."""
LARGEST_GAP = {"float32": 1e-3, "bfloat16": 0.5}
"""By which those may differ in one token."""
FAR_BEYOND = 5.0
"""Standard deviations of returns in units of `value_clip`, beyond which a user is warned."""
SHOWN = 8
"""Samples of a report."""


def check_policy(experiment: Experiment, sources: list, mesh) -> None:
    """UserError for what would stop a run, or teach it nothing, before its first step."""
    o, data = options_of(experiment)
    bind(experiment, mesh)
    length = response_length(data, o)
    if data.prompt_tokens + length > experiment.model.context_length:
        response = f"objective.response_tokens {o.response_tokens}"
        if (turns := turns_of(data.environments)) > 1:
            response += f", in {turns} turns with data.reply_tokens {data.reply_tokens} between them,"
        raise UserError(
            f"data.prompt_tokens {data.prompt_tokens} and {response} do not fit the context of {experiment.model.context_length}",
            "Lower one of them.",
        )
    if experiment.batch_size % o.group_size or experiment.batch_size % (o.minibatches * experiment.micro_batches):
        raise UserError(
            f"batch_size {experiment.batch_size} must be a multiple of objective.group_size {o.group_size}, and of objective.minibatches "
            f"{o.minibatches} times micro_batches {experiment.micro_batches}",
            "Change one of them.",
        )
    check_batch(mesh, experiment.batch_size // o.minibatches, experiment.micro_batches, 1)
    check_batch(mesh, experiment.batch_size // o.group_size, 1, 1)
    if o.slots:
        check_batch(mesh, o.slots // o.group_size, 1, 1)
        if turns_of(data.environments) > 1:
            raise UserError(
                "objective.slots works with responses of one turn only, but an environment replies", "Leave --objective.slots out."
            )
    if o.cut_at and turns_of(data.environments) > 1:
        raise UserError(
            "objective.cut_at works with responses of one turn only, but an environment replies", "Leave --objective.cut-at out."
        )
    if mesh.shape["context"] > 1:
        raise UserError("a policy is trained on whole responses: mesh.context must be 1", "Leave --mesh.context out.")
    if isinstance(experiment.adapters, Tuning) and o.reference != "copy":
        raise UserError(
            f"objective.reference is {o.reference}, but with adapters the reference is the frozen model itself", "Leave it out."
        )
    Questions(experiment, sources).check()


def make_learn(update, o: PolicyGradient, seed: int, episodes: int):
    """learn(state, frozen, rollout, estimates, scores, kept_B) -> state, metrics: advantages, then every epoch and minibatch of `update`.

    One pure function to jit. The order of rows is new in each epoch of each step. state.step counts calls of this function.
    """

    def learn(state: State, frozen, rollout: Rollout, estimates, scores, kept_B):
        coefficient, scale, carry = state.carry["kl_coefficient"], 1.0, dict(state.carry)
        if o.scale_scores:
            totals_B = scores_by_token(scores, rollout.stopped_B, rollout.mask_BR, o).sum(1)
            scale, carry["scores"] = running_scale(carry["scores"], totals_B, kept_B)
        experience, found = make_experience(rollout, estimates, scores, kept_B, o, coefficient, scale)
        key = random_key(seed, state.step, Purpose.SHUFFLE)
        after, metrics = learn_in_epochs(update, state, frozen, experience, key, epochs=o.epochs, minibatches=o.minibatches)
        kl, weight = found["objective/kl"]
        if o.kl_target:
            changed = adapted_kl_coefficient(coefficient, kl / weight, target=o.kl_target, horizon=o.kl_horizon, episodes=episodes)
            coefficient = jnp.where(weight > 0, changed, coefficient)
        found["objective/kl_coef"] = Mean(state.carry["kl_coefficient"], jnp.float32(1))
        carry |= {"kl_coefficient": coefficient, "steps": state.carry["steps"] + 1}
        return dataclasses.replace(after, carry=carry), metrics | found

    return learn


def options_of(experiment: Experiment) -> tuple[PolicyGradient, Prompts]:
    """The objective and the data of an experiment that learns from reward."""
    o, data = experiment.objective, experiment.data
    assert isinstance(o, PolicyGradient) and isinstance(data, Prompts)
    return o, data


def learn_of(experiment: Experiment, optimizer, mesh, *, lower: bool = False):
    """make_learn's program for an experiment, compiled for a mesh; `lower` only lowers it."""
    # The loss of a policy gradient has no trend that a spike could stand out from.
    update = update_of(experiment, bind_trained(experiment, mesh), optimizer)
    o, _ = options_of(experiment)
    learn = make_learn(update, o, experiment.seed, experiment.batch_size)
    jitted = jax.jit(learn, donate_argnums=0, compiler_options=compiler_options(mesh.devices.flat[0].platform))
    return on_mesh(jitted.lower if lower else jitted, mesh)


class PolicyLearner(Learner):
    """PPO, GRPO and their kin: see `train.rl.options.PolicyGradient`."""

    padding_share = 0.0
    validates = True

    check = staticmethod(check_policy)

    def __init__(self, run: Run, sources: list, mesh):
        experiment = run.experiment
        o, _ = options_of(experiment)
        self._run, self._mesh, self._options = run, mesh, o
        self._questions = Questions(experiment, sources)
        self._model, self._critic = realise(experiment.model), critic_of(o, experiment.model)
        bound, self._method = bind_trained(experiment), method_of(experiment)
        self.parameters, self.carry = bound.start, bound.carry
        updates = o.epochs * o.minibatches
        self.optimizer = optimizer_of(experiment, updates)
        rate = make_schedule(experiment.schedule, experiment.optimizer.learning_rate, experiment.steps * updates)
        self.rate = lambda step: rate(step * updates)
        self.flops_per_token = None if o.critic == "separate" else flops_of(experiment)
        self._remarks: list[str] = []
        self._reference = Reference(run, mesh, self._remarks.append)
        self._incoming: Prefetch | None = None
        self._baseline: dict[str, np.ndarray] | None = None
        self._remarked, self._unscored, self._clip_doubted, self._begun = 0, 0, False, False

        compiled = {"compiler_options": compiler_options(mesh.devices.flat[0].platform)}
        self._learn = learn_of(experiment, self.optimizer, mesh)
        self._sample = ResponseSampler(experiment, self._questions, self._model, mesh)
        shards = row_shards(mesh)

        def evaluate(params, reference, rollout, *, again: bool):
            return evaluate_rollout(self._model, self._critic, o, params, reference, rollout, again=again, shards=shards)

        self._evaluate_rollout = on_mesh(jax.jit(evaluate, static_argnames="again", **compiled), mesh)

    @staticmethod
    def abstract_step(experiment: Experiment, mesh):
        """Of learning from a batch of responses; sampling them needs less."""
        o, data = options_of(experiment)
        state, rows = state_of(experiment, mesh), experiment.batch_size
        size = data.prompt_tokens + (length := response_length(data, o))
        place = NamedSharding(mesh, PartitionSpec(ROWS))

        def like(dtype, *shape):
            return jax.ShapeDtypeStruct(shape, dtype, sharding=place)

        tokens, masks = like("int32", rows, size), like("float32", rows, length)
        rollout = Rollout(tokens, tokens, masks, masks, like("bool", rows))
        scores = masks if turns_of(data.environments) > 1 else like("float32", rows)
        frozen = frozen_shapes(experiment, mesh, reads_reference=reads_reference(o))
        learn = learn_of(experiment, optimizer_of(experiment, o.epochs * o.minibatches), mesh, lower=True)
        return learn, state, (frozen, rollout, TokenEstimates(masks, masks, masks), scores, like("float32", rows))

    # ---------------------------------------------------------------------------------------------------------------- the loop's

    def remarks(self) -> list[str]:
        said, self._remarks = self._remarks, []
        if len(self._questions.unusable) > self._remarked:
            self._remarked = len(self._questions.unusable)
            said.append(f"{self._remarked} prompts so far are longer than data.prompt_tokens: their rows are empty (data.max_unusable)")
        if self._questions.unscored > 2 * self._unscored:  # not at every step
            self._unscored = self._questions.unscored
            said.append(f"{self._unscored} responses so far have a reward that is not finite: their groups are left out")
        return said

    @property
    def waited_s(self) -> float:
        return self._incoming.waited_s if self._incoming else 0.0

    def adopt(self, params):
        if self._method is not None:
            return begun_on(self._method, self._reference.base, params, self._remarks.append)
        return adopt(self._run, self._mesh, params, self._remarks.append)

    def whole(self, params):
        return params if self._method is None else joined(self._method, self._reference.base, params)

    def begin(self, cursor: int, between: Callable[[], None]) -> None:
        self.close()
        if not self._begun:
            self._remarks, self._begun = self._remarks + self._questions.check(), True
        if not self._options.drop_equal_groups:  # else how many prompts a step takes is known only in the end
            count = self._prompts
            self._incoming = prefetch(lambda number: self._questions.take(cursor + number * count, count), 0, depth=2)

    @property
    def _prompts(self) -> int:
        """Prompts of one round of sampling."""
        return self._run.experiment.batch_size // self._options.group_size

    def __next__(self) -> list[Question] | None:
        return None if self._incoming is None else next(self._incoming)

    def shows(self) -> list[Section]:
        return []

    def close(self) -> None:
        if self._incoming is not None:
            self._incoming.close()
            self._incoming = None

    def step(self, state: State, batch: list[Question] | None) -> tuple[State, dict, int]:
        began, step, cursor, params = time.monotonic(), int(state.step), int(state.cursor), self.whole(state.params)
        if batch is None:
            rollout, scores, kept, consumed, sampling_s = self._sample_groups(params, cursor)
        else:
            found = self._sample(params, batch)
            rollout, scores, kept, sampling_s, consumed = found.rollout, found.scores, found.kept, found.seconds, len(batch)
        scored_at = time.monotonic()
        again = step % CHECK_EVERY == 0
        reference = self._reference()
        compared = None if self._options.teacher else reference  # a teacher is asked by the loss alone
        estimates = self._evaluate_rollout(params, compared, rollout, again=again)
        if again:
            self._compare(step, rollout, estimates, has_reference=compared is not None)
        frozen = self._reference.frozen(reference, reads=reads_reference(self._options))
        del params, reference, compared  # one that is kept on the host leaves the device before the update
        state, metrics = self._learn(state, frozen, rollout, estimates._replace(policy=None), self._put(scores), self._put(kept))
        cursor_now = jax.device_put(np.int32(cursor + consumed), state.cursor.sharding)
        state = dataclasses.replace(state, cursor=cursor_now)
        jax.block_until_ready(metrics)
        self._doubt_value_clip(step, metrics)
        times = {"time/rollout": sampling_s, "time/reward": scored_at - began - sampling_s, "time/update": time.monotonic() - scored_at}
        return state, metrics | {name: Mean(np.float32(seconds), np.float32(1)) for name, seconds in times.items()}, consumed

    # -------------------------------------------------------------------------------------------------------- within a step

    def _sample_groups(self, params, cursor: int):
        """Draw until enough groups have scores that differ (DAPO, Yu et al. 2025, sec. 3.2).

        The groups are taken in the order of their prompts; the cursor moves past all that were sampled. What is missing after `most_draws`
        stays empty.
        """
        o, wanted = self._options, self._prompts
        taken: list[tuple[Rollout, np.ndarray]] = []
        count, consumed, sampling_s = 0, 0, 0.0
        while consumed < wanted * o.most_draws and count < wanted:
            questions = self._questions.take(cursor + consumed, wanted)
            found = self._sample(params, questions)
            consumed, sampling_s = consumed + wanted, sampling_s + found.seconds
            good = np.asarray(informative_groups(jnp.asarray(found.totals), o.group_size)) & (found.kept[:: o.group_size] > 0)
            rows = np.flatnonzero(np.repeat(good, o.group_size))[: (wanted - count) * o.group_size]
            taken.append((jax.tree.map(lambda x, rows=rows: self._sample.host(x)[rows], found.rollout), found.scores[rows]))
            count += len(rows) // o.group_size
        missing = (wanted - count) * o.group_size
        whole = jax.tree.map(lambda *arrays: _padded(np.concatenate(arrays), missing), *(rollout for rollout, _ in taken))
        scores = _padded(np.concatenate([scores for _, scores in taken]), missing)
        kept = np.concatenate([np.ones(count * o.group_size, np.float32), np.zeros(missing, np.float32)])
        return jax.tree.map(self._put, whole), scores, kept, consumed, sampling_s

    def _compare(self, step: int, rollout: Rollout, estimates, *, has_reference: bool) -> None:
        """The sampler's log-probabilities are used as the old ones: they must be those of the training pass. At the start the KL is 0."""
        gap = float(jnp.max(jnp.abs((estimates.policy - rollout.log_probs_BR) * rollout.mask_BR)))
        kind = "float32" if self._run.experiment.model.dtype in ("auto", "float32") and jax.default_backend() == "cpu" else "bfloat16"
        if not gap <= LARGEST_GAP[kind]:
            raise UserError(
                f"step {step}: the sampler and the training pass differ by {gap:.3g} in the log-probability of a token",
                "Their numerics differ: set --model.dtype float32, or report this with the model's config.",
            )
        if step == 0 and has_reference:
            kl = float((estimates.kl * rollout.mask_BR).sum() / rollout.mask_BR.shape[0])
            if kl < -LARGEST_GAP[kind] * rollout.mask_BR.shape[1]:
                raise UserError(
                    f"the KL to the reference is {kl:.3g} at the start, where it must be 0: the responses are not the policy's own",
                    "Check that objective.temperature is that of the responses, and that the reference is the run this one starts from.",
                )

    def _doubt_value_clip(self, step: int, metrics: dict) -> None:
        """A value moves by no more than the clip in a step, which is in units of reward: a critic of much larger returns lags behind."""
        o = self._options
        if o.critic == "none" or not o.value_clip or self._clip_doubted:
            return
        deviation = float(metrics["ppo/returns/var"].total) ** 0.5
        if deviation > FAR_BEYOND * o.value_clip:
            self._clip_doubted = True
            self._remarks.append(
                f"WARNING: step {step}: the returns' standard deviation is {deviation:.2f}, but objective.value_clip lets a value move by "
                f"{o.value_clip:g} per step: the critic may lag behind. Raise it, set it to 0, or set objective.scale_scores"
            )

    def _put(self, x: np.ndarray):
        """Rows of the host on the mesh."""
        return jax.device_put(x, NamedSharding(self._mesh, PartitionSpec(ROWS)))

    # ------------------------------------------------------------------------------------------------------------- evaluation

    def evaluate(self, params, between: Callable[[], None], split: str = "validation") -> dict:
        """Scores on prompts that are kept from training, and against the responses of the policy that the run started from.

        {"loss": the negative score, "score", "gold" (where scores only stand for it), "kl" (nats a response, to that policy), "win_rate"
        (share of prompts on which it is better, by gold where there is one, a tie counting half), "score_start", "gold_start", "length",
        "stopped", "prompts" (that fit data.prompt_tokens, and whose responses got rewards that are numbers)}. Nothing where there are none.
        """
        reference = start_parameters(self._run, self._mesh) if self._method is None else self._reference.base
        own = self._measure(params, reference, between)
        if reference is not None and self._baseline is None:
            self._baseline = self._measure(reference, None, between)
        begun = self._baseline if reference is not None else None
        scored = np.all(
            [np.isfinite(x) for measured in (own, begun or {}) for name, x in measured.items() if name in ("score", "gold")], axis=0
        )
        if not scored.any():
            self._remarks.append("WARNING: no response to a validation prompt got a finite reward: nothing is measured")
            return {}
        own = {name: values[scored] for name, values in own.items()}
        found: dict[str, Any] = {"loss": 0.0 - float(own["score"].mean())} | {name: float(values.mean()) for name, values in own.items()}
        if begun is not None:
            begun = {name: values[scored] for name, values in begun.items()}
            by = "gold" if "gold" in own else "score"
            wins = (own[by] > begun[by]) + 0.5 * (own[by] == begun[by])
            found |= {"win_rate": float(wins.mean())}
            found |= {f"{name}_start": float(begun[name].mean()) for name in ("score", "gold") if name in own}
        return found | {"prompts": int(scored.sum())}

    def _measure(self, params, reference, between: Callable[[], None]) -> dict[str, np.ndarray]:
        """Of one response to each validation prompt, [prompts] each: score (NaN where there is none), gold, length, stopped, and, with a
        reference, the KL to it."""
        experiment, shards = self._run.experiment, row_shards(self._mesh)
        count = experiment.evaluation.rows or options_of(experiment)[1].validation
        size = min(-(-experiment.batch_size // shards), -(-count // shards)) * shards
        found: dict[str, list] = {}
        for first in range(0, count, size):
            questions = self._questions.take(first, size, "validation")
            sampled = self._sample(params, questions, Purpose.VALIDATION, 1)
            responses, mask, stopped = map(
                self._sample.host, (sampled.rollout.responses_BR, sampled.rollout.mask_BR, sampled.rollout.stopped_B)
            )
            measured = {
                "score": np.where(sampled.kept > 0, sampled.totals, np.nan),
                "length": mask.sum(1),
                "stopped": stopped.astype(np.float32),
            }
            gold = self._questions.gold(questions, sampled.texts, responses, mask)
            if gold is not None:
                measured["gold"] = gold
            if reference is not None:
                measured["kl"] = self._sample.host(self._evaluate_rollout(params, reference, sampled.rollout, again=False).kl.sum(1))
            for name, values in measured.items():
                found.setdefault(name, []).append(values)
            between()
        return {name: np.concatenate(values)[:count] for name, values in found.items()}

    def samples(self, params) -> list[Sample]:
        """Responses to the first prompts that are kept from training."""
        shards = row_shards(self._mesh)
        count = -(-SHOWN // shards) * shards
        questions = self._questions.take(0, count, "validation")
        sampled = self._sample(params, questions, Purpose.VALIDATION, 1)
        found = zip(questions, sampled.texts, sampled.totals, strict=True)
        return [Sample(question.prompt.text, text, float(score)) for question, text, score in found][:SHOWN]


def _padded(x: np.ndarray, rows: int) -> np.ndarray:
    return np.concatenate([x, np.zeros((rows, *x.shape[1:]), x.dtype)])
