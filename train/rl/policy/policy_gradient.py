"""The objective of learning from reward: clipped policy gradient, clipped value loss, entropy, KL to a reference."""

import dataclasses
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from data.errors import UserError
from model.config import ModelConfig
from model.critic import SCALAR_HEAD, Critic
from model.heads import Head, score_tokens, vocabulary_table
from model.transformer import DECODER, Decoder
from train.experiment import CausalLM, Experiment
from train.kinds import Bound, Path, realise
from train.objectives.distillation import check_same_words, of_teacher
from train.objectives.terms import Mean, Term
from train.objectives.text.checks import check_continues
from train.rl import options
from train.rl.policy.advantages import kl_estimate
from train.runs.parts import get


class Experience(NamedTuple):
    """Responses to learn from. Inputs have T positions, of which the last R are followed by a response token or by padding (R = T is fine).

    tokens, segments, positions: int32 [B, T], as in TextBatch; several responses may share a row as segments. Of the R tokens that follow:
    targets int32; mask, 1 on what the policy chose; log_probs and values when that was sampled; advantages, returns; reference, its
    log-probability under the reference policy; sequences, 1 / length of the token's response: float32 [B, R].
    """

    tokens: Any
    segments: Any
    positions: Any
    targets: Any
    mask: Any
    log_probs: Any
    advantages: Any
    returns: Any
    values: Any
    reference: Any
    sequences: Any


def clipped_loss(log_ratio, advantages, *, low: float, high: float, dual: float = 0.0):
    """PPO's loss of a token (Schulman et al. 2017, eq. 7), with a range that need not be symmetric, and a bound for bad tokens.

    log_ratio: log of new over old probability. With dual above 1 the loss of a token with a negative advantage stops at -dual * advantage
    (Ye et al. 2020, eq. 5).
    """
    ratio = jnp.exp(log_ratio)
    loss = jnp.maximum(-advantages * ratio, -advantages * jnp.clip(ratio, 1.0 - low, 1.0 + high))
    if dual:
        loss = jnp.where(advantages < 0, jnp.minimum(loss, -dual * advantages), loss)
    return loss


def value_loss(values, old_values, returns, *, clip: float):
    """Half the squared error of a value; where the value left the range around the old one, the worse of both (0: no range)."""
    error = jnp.square(values - returns)
    if clip:
        held = old_values + jnp.clip(values - old_values, -clip, clip)
        error = jnp.maximum(error, jnp.square(held - returns))
    return 0.5 * error


def token_weights(batch: Experience, aggregate: str, response_tokens: int):
    """The weight of each token's loss, [B, R], and what the weighted sum is divided by (summed over the global batch)."""
    count = batch.mask.sum()
    responses = (batch.mask * batch.sequences).sum()
    match aggregate:
        case "token":
            return batch.mask, count
        case "sequence_mean":
            return batch.mask * batch.sequences, responses
        case "sequence_sum":
            return batch.mask, responses
        case "constant":
            return batch.mask, responses * response_tokens
    raise ValueError(f"aggregate {aggregate!r}; choose token, sequence_mean, sequence_sum or constant")


def mean_of_sequence(x_BR, batch: Experience):
    """At each token the mean of x over the chosen tokens of its response, [B, R]."""
    length = x_BR.shape[1]
    segments_BR = batch.segments[:, -length:]  # of the input; that of the target is the same, but for the padding, which is masked

    def one(x_R, segments_R):
        return jax.ops.segment_sum(x_R, segments_R, num_segments=length + 1)[segments_R]

    return jax.vmap(one)(x_BR * batch.mask * batch.sequences, segments_BR) * batch.mask


@dataclasses.dataclass(frozen=True)
class PolicyGradientLoss:
    """Policy, value, entropy and KL terms over an `Experience`; see `train.rl.options.PolicyGradient` for the options.

    Terms: `loss` (policy), `value_loss`, `entropy`, `kl`, each with a denominator of its own over the global minibatch. Metrics have the
    names of OpenAI's lm-human-preferences where it has one. `unsound` counts bad tokens whose ratio left its limit, which nothing else
    bounds: the step is then a bad one.
    With advantage none, `loss` is the KL. frozen["reference"]: parameters of the reference policy, which only the exact KL in the loss
    reads; those of a teacher are frozen["teacher"]. carry["steps"]: steps of the loop so far, which the critic's warm-up goes by.
    """

    model: Decoder
    critic: Critic
    options: options.PolicyGradient
    shards: int = 1
    teacher: Decoder | None = None

    def __call__(self, params, batch: Experience, key, *, frozen=None, carry=None):
        o, c = self.options, self.model.config
        exact = options.reads_reference(o)
        where = {"segments_BT": batch.segments, "positions_BT": batch.positions}
        length = batch.targets.shape[1]
        output = self.model.apply({"params": params}, batch.tokens, **where, branch=self.critic.branch_at)
        head, other = Head(output.hidden_BTD[:, -length:], vocabulary_table(params)), None
        if exact:
            reference = frozen["teacher" if self.teacher else "reference"]
            hidden_BTD = (self.teacher or self.model).apply({"params": reference}, batch.tokens, **where).hidden_BTD
            other = Head(hidden_BTD[:, -length:], vocabulary_table(reference))
        divergence = {"reverse": "kl", "forward": "reverse_kl", "jensen_shannon": "jensen_shannon"}[o.kl_divergence]
        want = ("nll", "entropy", divergence) if exact else ("nll", "entropy")
        how: dict[str, Any] = {"softcap": c.logit_softcap, "temperature": o.temperature, "shards": self.shards}
        scores = score_tokens(head, batch.targets, want=want, other=other, **how)

        mask, count = batch.mask, batch.mask.sum()
        weights, denominator = token_weights(batch, o.aggregate, o.response_tokens)
        log_ratio = jnp.clip(jnp.where(mask > 0, scores.log_probs - batch.log_probs, 0.0), -20.0, 20.0)
        compared = mean_of_sequence(log_ratio, batch) if o.sequence_ratio else log_ratio
        losses = clipped_loss(compared, batch.advantages, low=o.clip_low, high=o.clip_high, dual=o.dual_clip)
        learning = 1.0 if not o.critic_warmup else (carry["steps"] >= o.critic_warmup).astype(jnp.float32)
        terms = {"loss": Term(1.0, learning * (losses * weights).sum(), denominator)}
        if o.entropy_coefficient:
            terms["entropy"] = Term(-o.entropy_coefficient, learning * (scores.entropy * mask).sum(), count)
        if o.kl_coefficient and o.kl_in == "loss":
            kl = (
                getattr(scores, divergence)
                if exact
                else kl_estimate(jnp.where(mask > 0, scores.log_probs - batch.reference, 0.0), o.kl_estimator)
            )
            terms["kl"] = Term(o.kl_coefficient, learning * (kl * weights).sum(), denominator)

            if o.advantage == "none":
                terms["loss"] = terms.pop("kl")
        ratio, clipped = jnp.exp(compared), (compared > math.log1p(o.clip_high)) & (batch.advantages > 0)
        if o.clip_low < 1:
            clipped |= (compared < math.log1p(-o.clip_low)) & (batch.advantages < 0)
        metrics = {
            "ppo/policy/approxkl": 0.5 * jnp.square(log_ratio),
            "ppo/policy/approxkl_k3": kl_estimate(-log_ratio, "k3"),
            "ppo/policy/clipfrac": clipped.astype(jnp.float32),
            "ppo/policy/entropy": scores.entropy,
            "ppo/val/ratio": ratio,
        }
        if self.critic.layout != "none":
            values = self.critic(params, output, batch.tokens, batch.segments, batch.positions)[:, -length:]
            error = value_loss(values, batch.values, batch.returns, clip=o.value_clip)
            terms["value_loss"] = Term(o.value_coefficient, (error * mask).sum(), count)
            metrics["ppo/val/error"] = jnp.square(values - batch.returns)
            metrics["ppo/val/clipfrac"] = (jnp.abs(values - batch.values) > o.value_clip).astype(jnp.float32)
        means = {name: Mean((value * mask).sum(), count) for name, value in metrics.items()}
        unsound = ((log_ratio > math.log(o.ratio_limit)) * (batch.advantages < 0) * mask).sum()  # elsewhere the clip holds it
        return terms, means | {"unsound": Mean(unsound, count)}, carry


def critic_of(options: options.PolicyGradient, config: ModelConfig) -> Critic:
    """UserError where the model has no place for it."""
    try:
        return Critic(config, options.critic, options.critic_layers, options.critic_detached)
    except ValueError as error:
        raise UserError(f"objective.critic: {error}", "Set --objective.critic or --objective.critic-layers.") from None


def bind(options: options.PolicyGradient, experiment: Experiment, shards: int) -> Bound:
    check_continues(options, experiment)
    o, model, critic = options, realise(experiment.model), critic_of(options, experiment.model)
    carry = {"kl_coefficient": jnp.float32(o.kl_coefficient), "steps": jnp.int32(0)}

    def inherit(source, parts: dict[str, Path]) -> dict[Path, Any]:
        """A critic that is not taken over begins as the trunk of the policy, with the scalar head of that trunk, if it has one."""
        found = critic.like_policy(source)
        if found and SCALAR_HEAD in parts:
            found |= {"value": get(source, parts.pop(SCALAR_HEAD))}
        return {(name,): part for name, part in found.items()}

    teacher = None
    if o.teacher_model:
        check_same_words(o.teacher, o.teacher_model[0], experiment.model)
        teacher = of_teacher(experiment, o.teacher_model[0], CausalLM())
    return Bound(
        PolicyGradientLoss(model, critic, o, shards, realise(o.teacher_model[0]) if o.teacher_model else None),
        start=lambda key: model.start(key) | critic.start(key),
        parts=model.parts() | critic.parts(),
        inherit=inherit,
        carry=carry | ({"scores": jnp.zeros(3)} if o.scale_scores else {}),
        reference=DECODER if o.kl_coefficient > 0 and teacher is None else (),
        teacher=teacher,
    )
